"""Distributions: p(x|z), priors, bounds on log p(x), output distributions, normalizing flows.

Imports: floors 1 and 2. Start with `likelihoods.py` and `elbo.py`; `flows/` holds the bijectors.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.distributions.aggregate import DIPVAE, MMD, BetaTCVAE
    from genjax.distributions.elbo import ELBO, IWAE, Beta, Capacity, DReG, FreeBits
    from genjax.distributions.likelihoods import (
        Bernoulli,
        Categorical,
        DiscretizedLogistic,
        Gaussian,
        OptimalGaussian,
    )
    from genjax.distributions.outputs import LogisticMixture
    from genjax.distributions.priors import FlowPrior, Mixture, Normal, VampPrior

__all__, __getattr__, __dir__ = attach(__name__, __file__)
