"""StyleGAN2 on emoji, with augmentation.

Variants: full (64 x 64 pixels, the default, for a GPU: not yet run in full), small (32 x 32, for a CPU). The image
folder (see `genjax.data.sources.emoji`) is set by --config.data.source.data_dir=DIR.
"""

from genjax.adversarial.augment import Adaptive, DiffAugment
from genjax.adversarial.penalties import R1, Lazy
from genjax.core.errors import UserError, nearest
from genjax.data import Data, Emoji, Flip, Scale
from genjax.networks import StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.adversarial.stylegan import StyleGAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam

VARIANTS = ("full", "small")


def get_experiment(variant: str = "full") -> Experiment:
    """Images from a constant of 4 x 4; adaptive augmentation limits overfitting to the 1,451 images."""
    if variant not in VARIANTS:
        raise UserError(f"stylegan2_emoji has no '{variant}': {nearest(variant, VARIANTS)}")
    small = variant == "small"
    data = Data(Emoji(size=32 if small else 64), (Flip(), Scale(0.0, 255.0)))
    channels = (64, 64, 32, 16) if small else (256, 256, 256, 128, 64)
    width = 64 if small else 256
    gan = GAN(
        generator=StyleSynthesis(channels=channels),
        discriminator=StyleDiscriminator(channels=channels[::-1], width=width),
        shape=data.shape,
        latent=width,
        penalties=(Lazy(R1(1.0), every=16),),
        augment=Adaptive(DiffAugment(color=0.5, cutout=0.25)),
    )
    return Experiment(
        objective=StyleGAN(gan=gan, mapping=StyleMapping(width=width, depth=3 if small else 8)),
        data=data,
        optimizer=Adam(learning_rate=5e-3 if small else 2e-3, b1=0.0, b2=0.99),
        steps=2000 if small else 50_000,
        batch_size=16 if small else 64,
        ema=0.998 if small else 0.999,
        checkpoint_every=500 if small else 2500,
        sample_every=500 if small else 2500,
        evaluation=Evaluation(num=500, batch_size=100) if small else Evaluation(),
    )
