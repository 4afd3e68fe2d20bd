"""Data: sources, transforms that the likelihood can invert, and batches that are pure in (seed, step)."""
