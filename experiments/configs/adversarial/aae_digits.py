"""Adversarial autoencoder on handwritten digits: a game in the latent space matches the codes to N(0, I).

./launch/local.sh train --config=aae_digits

Six minutes on one core; Fréchet ratio 3.2 ± 0.2 on 1,000 samples.
"""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.networks import MLP, ConvDecoder, ConvEncoder
from genjax.objectives.adversarial.aae import AAE
from genjax.training.experiment import Experiment
from genjax.training.optimizers import Adam


def get_experiment() -> Experiment:
    """The encoder and decoder of vae_digits; the game takes the place of the KL divergence."""
    data, adam = Data(Digits(), (Scale(0.0, 16.0),)), Adam(learning_rate=1e-3, b1=0.5)
    return Experiment(
        objective=AAE(
            encoder=ConvEncoder(channels=(32, 64)),
            decoder=ConvDecoder(channels=(64, 32)),
            discriminator=MLP(width=128, depth=2),
            shape=data.shape,
            latent=8,
            condition=Labels(data.classes),
        ),
        data=data,
        optimizer={"autoencoder": adam, "discriminator": adam},
        steps=1500,
        checkpoint_every=500,
        sample_every=500,
    )
