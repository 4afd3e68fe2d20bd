"""Pix2Pix from outlines of handwritten digits to the digits; a minute on 2 cores.

Variants: gan (the default); l1, the generator alone with its L1 loss.
"""

from genjax.core.errors import UserError, nearest
from genjax.data import Data, DigitOutlines, Scale
from genjax.networks import PatchGAN, UNetGenerator
from genjax.objectives.adversarial.pix2pix import Pix2Pix
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam

VARIANTS = ("gan", "l1")


def get_experiment(variant: str = "gan") -> Experiment:
    """Two players on pairs of 16 x 16 pixels."""
    if variant not in VARIANTS:
        raise UserError(f"pix2pix_digits has no '{variant}': {nearest(variant, VARIANTS)}")
    data = Data(DigitOutlines(), (Scale(0.0, 16.0),))
    return Experiment(
        objective=Pix2Pix(
            generator=UNetGenerator(channels=(16, 32, 64), dropout=0.2, noisy=1),
            discriminator=PatchGAN(channels=(32, 64)),
            shape=data.shape,
            adversarial=0.0 if variant == "l1" else 1.0,
        ),
        data=data,
        optimizer=Adam(learning_rate=5e-4, b1=0.5),
        steps=1500,
        batch_size=32,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=360, pictured=40),
    )
