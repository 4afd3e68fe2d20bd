"""The library's functions on work directories: train, sample, evaluate, edit, compare, sweep, convert.

Imports: floors 1 to 5; no command-line flags. Start with `train.py`.
"""
