"""VQ-GAN on digits: vqvae_digits with an adversarial reconstruction loss; three minutes on 2 cores.

Its prior is a second run, as for vqvae_digits.
"""

import vqvae_digits

from genjax.networks import ConvEncoder
from genjax.networks.convolutional.perceptual import RandomFeatures
from genjax.objectives.latent.vqgan import VQGAN
from genjax.training.experiment import Experiment
from genjax.training.optimizers import Adam


def get_experiment() -> Experiment:
    """A discriminator of 4 x 4 patches; random features in place of a downloaded perceptual network."""
    data = vqvae_digits.DATA
    adam = Adam(learning_rate=1e-3, b1=0.5, b2=0.99)
    return Experiment(
        objective=VQGAN(
            autoencoder=vqvae_digits.model(),
            discriminator=ConvEncoder(channels=(32,), norm="none", activation="leaky_relu"),
            patches=(4, 4, 1),
            perceptual=RandomFeatures(ConvEncoder(channels=(16,)), weight=0.5),
            start=200,
        ),
        data=data,
        optimizer={"discriminator": adam, "vqvae": adam},
        steps=1000,
        batch_size=128,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
    )
