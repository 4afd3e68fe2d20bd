"""Variational diffusion with a learned noise schedule on a ring of eight Gaussians in the plane; minutes on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.networks import MLP, Monotone
from genjax.objectives.diffusion.vdm import VDM
from genjax.samplers.sde import Ancestral
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """The entropy is known. Expected: the bound approaches it from above."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=VDM(
            net=MLP(width=128, depth=3, time_scale=100.0),
            shape=data.shape,
            schedule=Monotone(start=-9.0, end=7.0, width=32),
            sampler=Ancestral(steps=200, variance=0.0),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=3000,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
