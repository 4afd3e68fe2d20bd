"""Transformers: blocks, attention, mixtures of experts, and the token and patch transformers made of them."""
