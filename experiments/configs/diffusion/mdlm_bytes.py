"""Masked diffusion on the bytes of Python's standard library, in windows of 64; four minutes on a CPU."""

from genjax.data import Data, StdlibBytes
from genjax.diffusion.discrete import Absorbing
from genjax.networks.transformers.token_transformer import TokenTransformer
from genjax.objectives.diffusion.token_diffusion import TokenDiffusion
from genjax.samplers.tokens import TokenAncestral
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Bits per dimension are a bound on the bits per byte of windows without preceding context."""
    data = Data(StdlibBytes(length=64))
    return Experiment(
        objective=TokenDiffusion(
            net=TokenTransformer(width=128, depth=2, heads=4),
            shape=data.shape,
            process=Absorbing(data.levels),
            sampler=TokenAncestral(steps=64),
            draws=2,
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=100.0),
        steps=1500,
        batch_size=32,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=64, batch_size=256, pictured=8),
    )
