"""Types, errors, the contract and the typed configuration tree: what every other room may import.

Imports: nothing of genjax (floor 1). Start with `objective.py`, the contract between objectives, networks and programs.
"""
