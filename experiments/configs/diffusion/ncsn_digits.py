"""NCSN on scikit-learn's 8x8 digits: scores at 20 noise levels, annealed Langevin sampling; four minutes on a CPU."""

from genjax.data import Data, Digits, Scale
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import Eps
from genjax.diffusion.process import VE
from genjax.diffusion.times import DiscreteTimes
from genjax.diffusion.weighting import OnEps
from genjax.networks import UNet
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.grids import LogSNR
from genjax.samplers.langevin import AnnealedLangevin
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Song & Ermon 2019 (arXiv:1907.05600), with 2020's scaled output: score = -out / sigma (arXiv:2006.09011)."""
    data = Data(Digits(), (Scale(0.0, 16.0),))
    levels = 20
    objective = Diffusion(
        net=UNet(channels=24, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.1),
        shape=data.shape,
        process=VE(sigma_min=0.05, sigma_max=8.0),  # about the largest distance between two digits
        predict=Eps(),
        times=DiscreteTimes(levels, low=0.0),
        weight=OnEps(),
        sampler=AnnealedLangevin(steps=levels - 1, grid=LogSNR(1.0, 0.0), inner=20),
        likelihood=OdeLikelihood(steps=0),  # no density: these digits are not dequantized
    )
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1000,
        batch_size=128,
        checkpoint_every=250,
        sample_every=0,
        evaluation=Evaluation(num=500),
    )
