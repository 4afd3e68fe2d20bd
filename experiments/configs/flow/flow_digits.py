"""Class-conditional normalizing flow of scikit-learn's 8 x 8 digits of 17 grey levels; minutes on 2 cores.

flow_digits             Glow: ActNorm, invertible 1 x 1, affine channel couplings, two scales
flow_digits:realnvp     RealNVP: checkerboard and channel couplings, two scales
flow_digits:spline      Glow with rational-quadratic splines in place of affine maps
flow_digits:variational Glow with variational dequantization (a flow)
"""

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError, nearest
from genjax.data import Data, Digits
from genjax.distributions.flows import models
from genjax.distributions.flows.bijector import Chain, Repeat
from genjax.distributions.flows.dequantize import UniformNoise, Variational
from genjax.distributions.flows.layers import Checkerboard, Coupling
from genjax.distributions.flows.linear import ActNorm
from genjax.distributions.flows.scalar import Spline
from genjax.distributions.flows.shape import Logit
from genjax.networks import ResNet
from genjax.objectives.flow import Flow
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine

NET = ResNet(width=48, depth=1, dropout=0.2)
MODELS = {
    "glow": models.glow(NET, scales=2, steps=6),
    "realnvp": models.realnvp(NET, scales=2, pairs=2),
    "spline": models.glow(NET, Spline(bins=8, bound=4.0), scales=2, steps=6),
}
BOARDS = Chain((Coupling(NET, mask=Checkerboard()), Coupling(NET, mask=Checkerboard(odd=True))))


def get_experiment(variant: str = "glow") -> Experiment:
    """Bits per dimension come from a lower bound on the log-probability, through dequantization."""
    if variant not in (*MODELS, "variational"):
        raise UserError(f"flow_digits has no '{variant}': {nearest(variant, (*MODELS, 'variational'))}")
    data = Data(Digits())
    return Experiment(
        objective=Flow(
            bijector=Chain((Logit(), ActNorm(), MODELS.get(variant, MODELS["glow"]))),
            shape=data.shape,
            condition=Labels(data.classes),
            levels=data.levels,
            dequantize=Variational(Repeat(BOARDS, 2)) if variant == "variational" else UniformNoise(),
            draws=16,
            temperature=0.7,
        ),
        data=data,
        optimizer=AdamW(learning_rate=1e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1500,
        batch_size=64,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=1000),
    )
