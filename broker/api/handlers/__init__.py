"""One module for each kind of thing: its operations as rows of the route table, with the functions that serve them.

A handler translates a checked call into one question to one service, and its answer into a body. It decides nothing.
"""
