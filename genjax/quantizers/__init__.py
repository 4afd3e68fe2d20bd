"""Quantizers: features to codes and back."""

from genjax.quantizers.base import Quantized, Quantizer, perplexity, usage
from genjax.quantizers.codebook import Codebook, MovingCodebook, Residual
from genjax.quantizers.gumbel import Gumbel
from genjax.quantizers.scalar import FSQ, LFQ

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
