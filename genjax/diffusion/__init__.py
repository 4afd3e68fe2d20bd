"""Diffusion: processes, predictions, weightings, guidance, as orthogonal choices."""
