"""StyleGAN2 on emoji of 64 x 64 pixels, with augmentation, for a GPU: not yet run to its end.

The folder of the pictures (see `genjax.data.emoji`) is given by --config.data.source.data_dir=DIR.
"""

from genjax.adversarial.augment import Adaptive, DiffAugment
from genjax.adversarial.penalties import R1, Lazy
from genjax.data import Data, Emoji, Flip, Scale
from genjax.experiment import Experiment
from genjax.networks import StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.objectives.gan import GAN
from genjax.objectives.stylegan import StyleGAN
from genjax.optimizers import Adam


def get_experiment() -> Experiment:
    """Images from a constant of 4 x 4; 1,451 of them, so that the discriminator must be kept from learning them."""
    data = Data(Emoji(), (Flip(), Scale(0.0, 255.0)))
    gan = GAN(
        generator=StyleSynthesis(channels=(256, 256, 256, 128, 64)),
        discriminator=StyleDiscriminator(channels=(64, 128, 256, 256, 256), width=256),
        shape=data.shape,
        latent=256,
        penalties=(Lazy(R1(1.0), every=16),),
        augment=Adaptive(DiffAugment(color=0.5, cutout=0.25)),
    )
    return Experiment(
        objective=StyleGAN(gan=gan, mapping=StyleMapping(width=256, depth=8)),
        data=data,
        optimizer=Adam(learning_rate=2e-3, b1=0.0, b2=0.99),
        steps=50_000,
        batch_size=64,
        ema=0.999,
        checkpoint_every=2500,
        sample_every=2500,
    )
