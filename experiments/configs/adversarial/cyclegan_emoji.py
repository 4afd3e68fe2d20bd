"""CycleGAN between Twemoji and Noto Emoji, with disjoint training sets of emoji, for a GPU: not yet run in full.

Variants: full (64 x 64 pixels, the default), small (32 x 32, for a CPU). The image folder (see
`genjax.data.sources.emoji`) is set by --config.data.source.data_dir=DIR.
"""

from genjax.core.errors import UserError, nearest
from genjax.data import Both, Data, EmojiStyles, Flip, Scale
from genjax.networks import PatchGAN, ResNetGenerator
from genjax.objectives.adversarial.cyclegan import CycleGAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam

VARIANTS = ("full", "small")


def get_experiment(variant: str = "full") -> Experiment:
    """Four players; images are randomly flipped."""
    if variant not in VARIANTS:
        raise UserError(f"cyclegan_emoji has no '{variant}': {nearest(variant, VARIANTS)}")
    small = variant == "small"
    data = Data(EmojiStyles(size=32 if small else 64), (Both(Flip()), Scale(0.0, 255.0)))
    return Experiment(
        objective=CycleGAN(
            generator=ResNetGenerator(
                channels=(16, 32, 64) if small else (64, 128, 256), depth=3 if small else 6
            ),
            discriminator=PatchGAN(channels=(32, 64, 128) if small else (64, 128, 256, 512)),
            shape=data.shape,
        ),
        data=data,
        optimizer=Adam(learning_rate=2e-4, b1=0.5),
        steps=1000 if small else 50_000,
        batch_size=4,
        checkpoint_every=250 if small else 2500,
        sample_every=250 if small else 2500,
        evaluation=Evaluation(num=154, batch_size=154, pictured=40),
    )
