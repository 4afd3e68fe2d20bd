"""Class-conditional diffusion with a transformer (DiT) on scikit-learn's handwritten digits; minutes on 2 cores."""

import diffusion_digits

from genjax.core.tree import replace
from genjax.networks import DiT
from genjax.training.experiment import Experiment


def get_experiment() -> Experiment:
    """The main job with another network: 16 patches of 2 x 2 pixels."""
    base = diffusion_digits.get_experiment()
    net = DiT(width=96, depth=4, heads=4, patch=2, dropout=0.1)
    return replace(base, objective=replace(base.objective, net=net))
