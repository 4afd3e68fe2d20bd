"""Metrics of generated text and molecules."""
