"""Class-conditional GAN with R1 on MNIST through TFDS.

Variants: mnist (the default), fashion_mnist. Where TFDS has not prepared the data set yet, see the README; the original
files are taken from a folder with --config.data.source.manual_dir=DIR. Nothing has been measured with it yet.
"""

from genjax.adversarial.augment import DiffAugment
from genjax.adversarial.conditioning import Projection
from genjax.adversarial.penalties import R1, Lazy
from genjax.data import TFDS, Data, Scale
from genjax.experiment import Evaluation, Experiment
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.objectives.gan import GAN
from genjax.optimizers import Adam


def get_experiment(variant: str = "mnist") -> Experiment:
    """Projected labels, the penalty on every fourth step, images shifted before they are judged."""
    data = Data(TFDS(variant), (Scale(0.0, 255.0),))
    return Experiment(
        objective=GAN(
            generator=ConvDecoder(channels=(128, 64), activation="leaky_relu"),
            discriminator=ConvEncoder(channels=(32, 64), norm="none", activation="leaky_relu"),
            shape=data.shape,
            latent=64,
            classes=data.classes,
            penalties=(Lazy(R1(1.0), 4),),
            augment=DiffAugment(color=0.0, cutout=0.0),
            conditioning=Projection(),
        ),
        data=data,
        optimizer=Adam(learning_rate=1e-3, b1=0.0, b2=0.99),
        steps=10_000,
        batch_size=64,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=2000),
    )
