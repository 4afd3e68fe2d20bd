"""Parts of adversarial training: losses, penalties, augmentation, spectral normalisation.

Imports: `core` (floor 2). Start with `losses.py`.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.adversarial.augment import Adaptive, DiffAugment, NoAugment
    from genjax.adversarial.conditioning import Auxiliary, Given, Projection
    from genjax.adversarial.losses import (
        Hinge,
        LeastSquares,
        Minimax,
        NonSaturating,
        Relativistic,
        Wasserstein,
    )
    from genjax.adversarial.path_length import PathLength
    from genjax.adversarial.penalties import R1, R2, Consistency, GradientPenalty, Lazy
    from genjax.adversarial.spectral import SpectralNorm

__all__, __getattr__, __dir__ = attach(__name__, __file__)
