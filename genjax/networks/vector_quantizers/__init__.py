"""Vector quantizers: features to codes and back."""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.networks.vector_quantizers.base import (
        Quantized,
        Quantizer,
        code_statistics,
        perplexity,
        usage,
    )
    from genjax.networks.vector_quantizers.codebook import Codebook, MovingCodebook, Residual
    from genjax.networks.vector_quantizers.gumbel import Gumbel
    from genjax.networks.vector_quantizers.scalar import FSQ, LFQ

__all__, __getattr__, __dir__ = attach(__name__, __file__)
