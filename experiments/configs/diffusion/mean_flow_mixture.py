"""MeanFlow on a ring of eight Gaussians in the plane, one evaluation per sample; two minutes on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.networks import MLP
from genjax.objectives.diffusion.mean_flow import MeanFlow
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Expected: all eight modes in one step."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=MeanFlow(net=MLP(width=128, depth=3, time_scale=10.0), shape=data.shape, apart=0.5),
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
