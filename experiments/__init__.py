"""Command-line programs: train, sample, evaluate and others."""
