"""genjax: one JAX code base for all families of generative models."""
