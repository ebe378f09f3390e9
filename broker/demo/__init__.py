"""`tokenbroker demo`: the whole story on one machine, told as it happens, with a verdict on each thing it promised.

`story` is the plot; `installation` the broker, `upstream` the API that somebody else runs, `cast` the workers, of which
each runs `worker` as a process of its own, `narrator` the voice, `verdict` the end.
"""
