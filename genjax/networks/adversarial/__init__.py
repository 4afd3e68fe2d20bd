"""Generators and discriminators: DCGAN, residual, StyleGAN2, PatchGAN, picture-to-picture translators."""
