"""Metrics: pure functions of samples and features, statistics in float64.

Imports: floors 1 and 2. Start with `report.py`, which combines them.
"""
