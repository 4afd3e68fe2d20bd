"""Class-conditional GANs on handwritten digits; minutes on a CPU.

gan_digits              non-saturating with R1, residual convolutions, the label as an input of both networks
gan_digits:dcgan        plain convolutions (Radford et al. 2016), non-saturating without a penalty
gan_digits:wgan_gp      the same, no norms in the critic, five critic steps per generator step (Gulrajani et al. 2017)
gan_digits:projection   hinge, spectral normalisation, projected labels (Miyato & Koyama 2018)
gan_digits:auxiliary    an auxiliary classifier in place of the label (Odena et al. 2017)
gan_digits:r3gan        paired relativistic loss with R1 and R2 (Huang et al. 2024)
gan_digits:ada          the first with adaptive augmentation (Karras et al. 2020), lazy R1 on every fourth step
"""

import dataclasses

from genjax.adversarial.augment import Adaptive, DiffAugment
from genjax.adversarial.conditioning import Auxiliary, Projection
from genjax.adversarial.losses import Hinge, Relativistic, Wasserstein
from genjax.adversarial.penalties import R1, R2, GradientPenalty, Lazy
from genjax.adversarial.spectral import SpectralNorm
from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.data import Data, Digits, Scale
from genjax.networks import (
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    ResDiscriminator,
    ResGenerator,
)
from genjax.objectives.adversarial.gan import GAN
from genjax.training.experiment import Experiment
from genjax.training.optimizers import Adam

DATA = Data(Digits(), (Scale(0.0, 16.0),))
BASE = GAN(
    generator=ConvDecoder(channels=(64, 32)),
    discriminator=ConvEncoder(channels=(32, 64), norm="none", activation="leaky_relu"),
    shape=DATA.shape,
    latent=64,
    condition=Labels(DATA.classes),
    penalties=(R1(1.0),),
)
RESIDUAL = dataclasses.replace(
    BASE, generator=ResGenerator((64, 32)), discriminator=ResDiscriminator((32, 64))
)
PLAIN = dataclasses.replace(
    BASE, generator=DCGANGenerator((64, 32)), discriminator=DCGANDiscriminator((32, 64)), penalties=()
)
VARIANTS = {
    "r1": BASE,
    "dcgan": PLAIN,
    "wgan_gp": dataclasses.replace(
        PLAIN,
        discriminator=DCGANDiscriminator((32, 64), norm="none"),
        game=Wasserstein(),
        penalties=(GradientPenalty(10.0),),
        every=5,
    ),
    "projection": dataclasses.replace(
        RESIDUAL, game=Hinge(), penalties=(), spectral=SpectralNorm(), conditioning=Projection(), every=2
    ),
    "auxiliary": dataclasses.replace(BASE, conditioning=Auxiliary()),
    "r3gan": dataclasses.replace(BASE, game=Relativistic(), penalties=(R1(1.0), R2(1.0))),
    "ada": dataclasses.replace(
        BASE, penalties=(Lazy(R1(1.0), 4),), augment=Adaptive(DiffAugment(color=0.5, cutout=0.25), speed=5e-3)
    ),
}
ADAM = Adam(learning_rate=1e-3, b1=0.0, b2=0.99)
# Variants whose paper uses momentum, or without a penalty, need other learning rates.
OPTIMIZERS = {
    "dcgan": Adam(learning_rate=2e-4, b1=0.5),
    "projection": Adam(learning_rate=1e-3, b1=0.0),
}
STEPS = {"dcgan": 5000}


def get_experiment(variant: str = "r1") -> Experiment:
    """Two players; Adam without momentum, unless the variant's paper uses it."""
    if variant not in VARIANTS:
        raise UserError(f"gan_digits has the variants {', '.join(VARIANTS)}, not '{variant}'")
    objective, adam = VARIANTS[variant], OPTIMIZERS.get(variant, ADAM)
    return Experiment(
        objective=objective,
        data=DATA,
        optimizer={"discriminator": adam, "generator": adam},
        steps=STEPS.get(variant, 1000 * objective.every),
        checkpoint_every=500,
        sample_every=500,
    )
