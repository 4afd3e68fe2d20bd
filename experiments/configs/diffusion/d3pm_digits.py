"""Class-conditional D3PM with masks on digits as 17 grey levels; four minutes on a CPU."""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits
from genjax.diffusion.discrete import Absorbing
from genjax.diffusion.token_bounds import DiscreteTime
from genjax.networks import UNet
from genjax.objectives.diffusion.token_diffusion import TokenDiffusion
from genjax.samplers.tokens import TokenAncestral
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Bits per dimension are a bound for the integers themselves, without dequantization."""
    data = Data(Digits())
    return Experiment(
        objective=TokenDiffusion(
            net=UNet(channels=32, multipliers=(1, 2), blocks=1, attention=(1,), heads=2),
            shape=data.shape,
            process=Absorbing(data.levels),
            bound=DiscreteTime(steps=64),
            condition=Labels(data.classes, 0.1),
            hybrid=0.001,
            sampler=TokenAncestral(steps=64),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=100.0),
        steps=1500,
        batch_size=128,
        ema=0.995,
        checkpoint_every=500,
        sample_every=500,
    )
