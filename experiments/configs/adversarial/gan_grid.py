"""GANs on a grid of 25 Gaussians in the plane; two minutes on two cores of a CPU.

    ./launch/local.sh train --config=gan_grid:VARIANT
    ./launch/local.sh evaluate --workdir=runs/gan_grid-VARIANT

Modes covered of 25, and the fraction of samples within three standard deviations of a mode (0.988 of true draws are);
three seeds each:

    nonsaturating 25, 0.84   lsgan 25, 0.78   hinge 25, 0.85   r3gan 25, 0.83   wgan_gp 24, 24, 3, 0.46
    wgan (weight clipping, 6000 steps) 24 or 25, 0.73   minimax (no penalty) 19 to 23, 0.66
"""

from dataclasses import dataclass

from genjax.adversarial.losses import (
    Game,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from genjax.adversarial.penalties import R1, R2, GradientPenalty, Penalty
from genjax.core.errors import UserError
from genjax.core.objective import Network
from genjax.data import Data, GaussianMixture, Scale
from genjax.networks import MLP, FeedForward
from genjax.objectives.adversarial.gan import GAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam, Cosine, Optimizer, WeightClip

CRITIC = MLP(width=128, depth=2, activation="leaky_relu")
ADAM = Adam(learning_rate=1e-3, b1=0.0, b2=0.99, schedule=Cosine())


@dataclass(frozen=True)
class Variant:
    """Settings of a variant."""

    game: Game
    penalties: tuple[Penalty, ...] = ()
    discriminator: Network = CRITIC
    optimizer: Optimizer = ADAM
    every: int = 1
    steps: int = 4000


VARIANTS = {
    "minimax": Variant(Minimax()),
    "nonsaturating": Variant(NonSaturating(), (R1(0.02),)),
    "lsgan": Variant(LeastSquares(), (R1(0.02),)),
    "hinge": Variant(Hinge(), (R1(0.02),)),
    "wgan": Variant(
        Wasserstein(),
        (),
        FeedForward((128, 128, 128), "leaky_relu"),
        WeightClip(ADAM, 0.1),
        every=2,
        steps=6000,
    ),
    "wgan_gp": Variant(Wasserstein(), (GradientPenalty(1.0),), every=2),
    "r3gan": Variant(Relativistic(), (R1(0.02), R2(0.02))),
}


def get_experiment(variant: str = "nonsaturating") -> Experiment:
    """All variants but `wgan` share the networks."""
    if variant not in VARIANTS:
        raise UserError(f"gan_grid has the variants {', '.join(VARIANTS)}, not '{variant}'")
    chosen = VARIANTS[variant]
    data = Data(GaussianMixture(count=25, layout="grid"), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=GAN(
            generator=MLP(width=128, depth=2, activation="relu"),
            discriminator=chosen.discriminator,
            shape=data.shape,
            latent=4,
            game=chosen.game,
            penalties=chosen.penalties,
            every=chosen.every,
        ),
        data=data,
        optimizer={"discriminator": chosen.optimizer, "generator": ADAM},
        steps=chosen.steps,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=2000,
        sample_every=0,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
