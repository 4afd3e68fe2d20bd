"""Quantizers: features to codes and back."""

from genjax.networks.vector_quantizers.base import Quantized, Quantizer, perplexity, usage
from genjax.networks.vector_quantizers.codebook import Codebook, MovingCodebook, Residual
from genjax.networks.vector_quantizers.gumbel import Gumbel
from genjax.networks.vector_quantizers.scalar import FSQ, LFQ

__all__ = [
    "FSQ",
    "LFQ",
    "Codebook",
    "Gumbel",
    "MovingCodebook",
    "Quantized",
    "Quantizer",
    "Residual",
    "perplexity",
    "usage",
]
