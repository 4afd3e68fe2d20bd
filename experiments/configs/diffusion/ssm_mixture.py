"""Sliced score matching on a ring of eight Gaussians in the plane; a minute on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.diffusion.process import VE
from genjax.diffusion.times import DiscreteTimes
from genjax.networks import MLP
from genjax.objectives.diffusion.score_matching import SlicedScoreMatching
from genjax.samplers.grids import LogSNR
from genjax.samplers.langevin import AnnealedLangevin
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """The loss needs no target: only the network's output and its derivative in one random direction."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    levels = 12
    return Experiment(
        objective=SlicedScoreMatching(
            net=MLP(width=128, depth=3),
            shape=data.shape,
            process=VE(sigma_min=0.02, sigma_max=3.0),
            times=DiscreteTimes(levels, low=0.0),
            sampler=AnnealedLangevin(steps=levels - 1, grid=LogSNR(1.0, 0.0), inner=50),
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
