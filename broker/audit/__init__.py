"""Record what happened so that it can be proved later: typed entries, a Merkle log, signed checkpoints.

`entries` says what may be recorded, `journal` makes it durable together with the change it describes, the rest
signs, exports, verifies and proves. Nothing here decides anything.
"""
