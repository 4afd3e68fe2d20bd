"""Convolutional VAE with latents of 4 x 4 x 2 on handwritten digits: for latent_diffusion_digits; a minute on 2 cores.

The likelihood's variance is the maximum-likelihood one, so no weight of the KL has to be chosen.
"""

from genjax.data import Data, Digits, Scale
from genjax.distributions.likelihoods import OptimalGaussian
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.objectives.latent.vae import VAE
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine

DATA = Data(Digits(), (Scale(0.0, 16.0),))


def model() -> VAE:
    """The autoencoder of latent_diffusion_digits."""
    return VAE(
        encoder=ConvEncoder(channels=(32,)),
        decoder=ConvDecoder(channels=(32,)),
        shape=DATA.shape,
        latent=(4, 4, 2),
        likelihood=OptimalGaussian(),
    )


def get_experiment() -> Experiment:
    """Its samples decode N(0, I), not the aggregate posterior, which latent_diffusion_digits models."""
    return Experiment(
        objective=model(),
        data=DATA,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=10.0),
        steps=800,
        batch_size=128,
        ema=0.99,
        checkpoint_every=400,
        sample_every=400,
    )
