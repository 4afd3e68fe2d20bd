"""The device mesh, placement of arrays on it, and runs of several processes.

Imports: `core` (floor 2). Start with `mesh.py`; `hosts/` is the protocol between the processes of one run.
"""
