"""Evaluation of trained models: samples, likelihoods, held-out losses, comparison, costs.

Imports: floors 1 to 3. Start with `evaluate.py`.
"""
