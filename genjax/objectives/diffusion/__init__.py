"""Diffusion, flow matching, score matching, consistency and other objectives along a noise process."""
