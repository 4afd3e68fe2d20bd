"""Diffusion: processes, predictions, weightings, times, guidance and likelihood, as orthogonal choices.

Imports: `core` (floor 2). Start with `process.py` and `prediction.py`.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.diffusion.coupling import Independent, MinibatchOT, Sinkhorn
    from genjax.diffusion.discrete import Absorbing, UniformNoise
    from genjax.diffusion.guidance import ClassifierFree, PlusPlus, Projected
    from genjax.diffusion.ode_likelihood import OdeLikelihood
    from genjax.diffusion.prediction import X0, Eps, Preconditioned, Score, V, Velocity
    from genjax.diffusion.process import EDM, VE, VP, Cosine, RectifiedFlow, SubVP, Trigonometric
    from genjax.diffusion.threshold import Dynamic, NoThreshold, Static
    from genjax.diffusion.times import DiscreteTimes, LogitNormal, LogNormalSigma, UniformTimes
    from genjax.diffusion.weighting import P2, EDMLambda, Likelihood, MinSNR, OnEps, Sigmoid, Unit

__all__, __getattr__, __dir__ = attach(__name__, __file__)
