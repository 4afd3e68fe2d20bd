"""Conditioning: what a model is given beside x, made from a batch.

Imports: floors 1 and 2. Start with `labels.py`.
"""
