"""Metrics: pure functions over features and samples, statistics in float64."""
