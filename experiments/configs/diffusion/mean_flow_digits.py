"""Class-conditional MeanFlow on handwritten digits, guided, one evaluation per sample; four minutes on 2 cores."""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.networks import UNet
from genjax.objectives.diffusion.mean_flow import MeanFlow
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """The effective guidance scale is 2."""
    data = Data(Digits(), (Scale(0.0, 16.0),))
    objective = MeanFlow(
        net=UNet(channels=24, multipliers=(1, 2), blocks=1, attention=(1,), time_scale=10.0),
        shape=data.shape,
        condition=Labels(data.classes, 0.1),
        apart=0.5,
        guidance=1.0,
        mix=0.5,
    )
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=800,
        batch_size=128,
        ema=0.99,
        checkpoint_every=400,
        sample_every=400,
        evaluation=Evaluation(num=1000),
    )
