"""genjax: one JAX code base for all families of generative models.

    import genjax as gx
    run = gx.train(gx.Experiment(objective, data, gx.optimizers.Adam(1e-3), steps=1000))
    x = gx.sample(run, 100)

Rooms are modules (`gx.objectives`), nouns are classes (`gx.Experiment`), and five functions do the work. Everything is
imported on first use.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    # Rooms
    import genjax.adversarial
    import genjax.conditioning
    import genjax.data
    import genjax.diffusion
    import genjax.distributions
    import genjax.networks
    import genjax.objectives
    import genjax.samplers

    # Functions
    from genjax.api.complete import complete
    from genjax.api.evaluate import evaluate
    from genjax.api.load import TrainedRun, load
    from genjax.api.sample import sample
    from genjax.api.train import train

    # Nouns
    from genjax.core.errors import UserError
    from genjax.core.objective import Aux, Context, Mean, Network, Objective, Player, Sampling
    from genjax.core.types import named
    from genjax.data import Data
    from genjax.training import optimizers, schedules
    from genjax.training.experiment import Evaluation, Experiment, Monitor

__all__, __getattr__, __dir__ = attach(__name__, __file__)
