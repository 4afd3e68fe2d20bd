"""Convolutional VAE with latents of 4 x 4 x 2 on handwritten digits: for latent_diffusion_digits; a minute on 2 cores.

The likelihood's variance is the optimal one, so that no weight of the KL has to be chosen.
"""

from genjax.data import Data, Digits, Scale
from genjax.distributions.likelihoods import OptimalGaussian
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.objectives.latent.vae import VAE
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine

DATA = Data(Digits(), (Scale(0.0, 16.0),))


def model() -> VAE:
    """The objective, in whose latents diffusion takes place."""
    return VAE(
        encoder=ConvEncoder(channels=(32,)),
        decoder=ConvDecoder(channels=(32,)),
        shape=DATA.shape,
        latent=(4, 4, 2),
        likelihood=OptimalGaussian(),
    )


def get_experiment() -> Experiment:
    """Its own samples decode N(0, I), which its latents together are not: see the diffusion's."""
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
