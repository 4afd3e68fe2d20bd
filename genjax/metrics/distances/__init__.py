"""Distances, coverage, memorisation and two-sample tests between sets of features."""
