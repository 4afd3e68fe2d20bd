"""Pix2Pix from OpenMoji's line art to its colours.

Variants: full (64 x 64 pixels, the default, for a GPU: not yet run in full), small (32 x 32, about five minutes on a
core: held-out L1 0.049, nearest neighbour 0.088), full-l1 and small-l1 (the generator alone with its L1 loss: small
0.047). The image folder (see `genjax.data.sources.emoji`) is set by --config.data.source.data_dir=DIR.
"""

from genjax.core.errors import UserError, nearest
from genjax.data import Both, Data, Flip, LineArt, Scale
from genjax.networks import PatchGAN, UNetGenerator
from genjax.objectives.adversarial.pix2pix import Pix2Pix
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam

VARIANTS = ("full", "small", "full-l1", "small-l1")


def get_experiment(variant: str = "full") -> Experiment:
    """Two players on pairs, randomly flipped."""
    if variant not in VARIANTS:
        raise UserError(f"pix2pix_emoji has no '{variant}': {nearest(variant, VARIANTS)}")
    small = variant.startswith("small")
    data = Data(LineArt(size=32 if small else 64), (Both(Flip()), Scale(0.0, 255.0)))
    width = 16 if small else 64
    return Experiment(
        objective=Pix2Pix(
            generator=UNetGenerator(
                channels=tuple(width * k for k in ((1, 2, 4, 4) if small else (1, 2, 4, 8, 8, 8))),
                dropout=0.3 if small else 0.5,
                noisy=1 if small else 3,
            ),
            discriminator=PatchGAN(channels=tuple(width * k for k in ((2, 4, 8) if small else (1, 2, 4, 8)))),
            shape=data.shape,
            adversarial=0.0 if variant.endswith("l1") else 1.0,
        ),
        data=data,
        optimizer=Adam(learning_rate=5e-4 if small else 2e-4, b1=0.5),
        steps=1000 if small else 50_000,
        batch_size=16,
        checkpoint_every=250 if small else 2500,
        sample_every=250 if small else 2500,
        evaluation=Evaluation(num=154, batch_size=154, pictured=40),
    )
