"""Normalizing flows: bijectors with their log-determinants, and the base distributions they start from."""
