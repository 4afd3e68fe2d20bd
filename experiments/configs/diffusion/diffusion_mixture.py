"""Score-based diffusion on a ring of eight Gaussians in the plane; a minute on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.networks import MLP
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.ode import Heun
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """The exact density is known. Expected: all eight modes with the right width."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=Diffusion(
            net=MLP(width=128, depth=3),
            shape=data.shape,
            sampler=Heun(steps=25),
            likelihood=OdeLikelihood(steps=25, probes=0),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100)),
        steps=3000,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
