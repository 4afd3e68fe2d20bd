"""Objectives with latent variables: VAEs, VQ-VAEs, and generative models of a frozen autoencoder's latents."""
