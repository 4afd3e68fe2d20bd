"""Adversarial objectives: games between generators and discriminators."""
