"""Objectives: one family, one file."""
