"""Consistency training on a ring of eight Gaussians in the plane, one evaluation per sample; two minutes on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.diffusion.prediction import Preconditioned
from genjax.diffusion.process import EDM
from genjax.diffusion.times import LogNormalSigma
from genjax.networks import MLP
from genjax.objectives.diffusion.consistency import Consistency, Doubling
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Expected: all eight modes in one step."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=Consistency(
            net=MLP(width=128, depth=3, time_scale=20.0),
            shape=data.shape,
            process=EDM(sigma_min=0.01, sigma_max=20.0),
            predict=Preconditioned(sigma_data=0.5),
            times=LogNormalSigma(-1.0, 1.5, low=0.0),
            curriculum=Doubling(first=10, last=160, every=1000),
            huber=0.01,
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=5000,
        batch_size=256,
        ema=0.995,
        steps_per_call=20,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
