"""Samplers: pure steps that one `lax.scan` runs.

Imports: floors 1 and 2. Start with `scan.py` (the loop) and `ode.py`; `decoding/` draws sequences element by element.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.samplers.adaptive import AdaptiveODE, AdaptiveSDE
    from genjax.samplers.deis import DEIS
    from genjax.samplers.dpm import DPMSolverPP, SDEDPMSolverPP
    from genjax.samplers.edm import EDM
    from genjax.samplers.grids import Karras, LogSNR, Quadratic, Trailing, Uniform
    from genjax.samplers.langevin import AnnealedLangevin, PredictorCorrector
    from genjax.samplers.ode import DDIM, Euler, Heun
    from genjax.samplers.sde import Ancestral, EulerMaruyama, ReverseDiffusion
    from genjax.samplers.self_conditioned import SelfConditioned
    from genjax.samplers.tokens import Confidence, TokenAncestral
    from genjax.samplers.unipc import UniPC

__all__, __getattr__, __dir__ = attach(__name__, __file__)
