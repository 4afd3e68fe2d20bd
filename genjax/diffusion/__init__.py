"""Diffusion: processes, predictions, weightings, times, guidance, likelihood, as orthogonal choices."""
