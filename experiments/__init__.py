"""The command-line programs: train, sample, evaluate."""
