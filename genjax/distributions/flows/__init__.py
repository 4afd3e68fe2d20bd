"""Normalizing flows: bijectors with their log-determinants, and the laws that they start from."""
