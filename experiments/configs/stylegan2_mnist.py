"""Class-conditional StyleGAN2 on MNIST through TFDS, for a GPU: not yet run to its end.

Variants: mnist (the default), fashion_mnist. Where TFDS has not prepared the data set yet, see the README; the original
files are taken from a folder with --config.data.source.manual_dir=DIR.
"""

from genjax.adversarial.conditioning import Projection
from genjax.adversarial.penalties import R1, Lazy
from genjax.data import TFDS, Data, Scale
from genjax.experiment import Experiment
from genjax.networks import StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.objectives.gan import GAN
from genjax.objectives.stylegan import StyleGAN
from genjax.optimizers import Adam


def get_experiment(variant: str = "mnist") -> Experiment:
    """Images of 28 x 28 pixels from a constant of 7 x 7."""
    data = Data(TFDS(variant), (Scale(0.0, 255.0),))
    gan = GAN(
        generator=StyleSynthesis(channels=(128, 64, 32)),
        discriminator=StyleDiscriminator(channels=(32, 64, 128)),
        shape=data.shape,
        latent=128,
        classes=data.classes,
        penalties=(Lazy(R1(1.0), every=8),),
        conditioning=Projection(),
    )
    return Experiment(
        objective=StyleGAN(gan=gan, mapping=StyleMapping()),
        data=data,
        optimizer=Adam(learning_rate=2e-3, b1=0.0, b2=0.99),
        steps=20_000,
        batch_size=64,
        checkpoint_every=2000,
        sample_every=2000,
    )
