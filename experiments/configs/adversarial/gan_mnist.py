"""Class-conditional GANs on MNIST through TFDS; at most an hour on one CPU core.

Variants: DATA[-KIND], where DATA is mnist (the default) or fashion_mnist, and KIND one of

    r1       projected labels, lazy R1 on every fourth step, translated images for the discriminator (the default)
    dcgan    plain convolutions (Radford et al. 2016), non-saturating without a penalty
    wgan_gp  the same, no norms in the critic, two critic steps per generator step (Gulrajani et al. 2017)

If TFDS has not prepared the data set yet, see the README; a folder with the original files is set by
--config.data.source.manual_dir=DIR.
"""

import dataclasses

from genjax.adversarial.augment import DiffAugment
from genjax.adversarial.conditioning import Projection
from genjax.adversarial.losses import Wasserstein
from genjax.adversarial.penalties import R1, GradientPenalty, Lazy
from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError, nearest
from genjax.data import TFDS, Data, Scale
from genjax.networks import ConvDecoder, ConvEncoder, DCGANDiscriminator, DCGANGenerator
from genjax.objectives.adversarial.gan import GAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam, Optimizer


@dataclasses.dataclass(frozen=True)
class Kind:
    """Settings of a kind."""

    optimizer: Optimizer  # of both players
    steps: int


KINDS = {
    "r1": Kind(Adam(learning_rate=1e-3, b1=0.0, b2=0.99), steps=10_000),
    "dcgan": Kind(Adam(learning_rate=2e-4, b1=0.5), steps=5000),
    "wgan_gp": Kind(Adam(learning_rate=1e-3, b1=0.0, b2=0.99), steps=3000),
}


def make(kind: str, data: Data) -> GAN:
    """The objective of a kind."""
    if kind == "r1":
        return GAN(
            generator=ConvDecoder(channels=(128, 64), activation="leaky_relu"),
            discriminator=ConvEncoder(channels=(32, 64), norm="none", activation="leaky_relu"),
            shape=data.shape,
            latent=64,
            condition=Labels(data.classes),
            penalties=(Lazy(R1(1.0), 4),),
            augment=DiffAugment(color=0.0, cutout=0.0),
            conditioning=Projection(),
        )
    plain = GAN(
        generator=DCGANGenerator((64, 32)),
        discriminator=DCGANDiscriminator((32, 64)),
        shape=data.shape,
        latent=64,
        condition=Labels(data.classes),
        penalties=(),
    )
    if kind == "dcgan":
        return plain
    return dataclasses.replace(
        plain,
        discriminator=DCGANDiscriminator((32, 64), norm="none"),
        game=Wasserstein(),
        penalties=(GradientPenalty(10.0),),
        every=2,
    )


def get_experiment(variant: str = "mnist") -> Experiment:
    """Two players with the optimizers of the kind."""
    name, _, kind = variant.partition("-")
    kind = kind or "r1"
    if kind not in KINDS:
        raise UserError(f"gan_mnist has no kind '{kind}': {nearest(kind, KINDS)}")
    data, chosen = Data(TFDS(name), (Scale(0.0, 255.0),)), KINDS[kind]
    return Experiment(
        objective=make(kind, data),
        data=data,
        optimizer={"discriminator": chosen.optimizer, "generator": chosen.optimizer},
        steps=chosen.steps,
        batch_size=64,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=2000),
    )
