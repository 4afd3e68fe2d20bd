"""Class-conditional VAE with a Gaussian likelihood of learned scale on handwritten digits; two minutes on a CPU."""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Dequantize, Digits, Scale
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.objectives.latent.vae import VAE, Gaussian
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Bits per dimension come from a bound: the digits are dequantized."""
    data = Data(Digits(), (Dequantize(), Scale(0.0, 17.0)))
    objective = VAE(
        encoder=ConvEncoder(channels=(32, 64)),
        decoder=ConvDecoder(channels=(64, 32)),
        shape=data.shape,
        latent=16,
        condition=Labels(data.classes),
        likelihood=Gaussian(std=0.3, learned=True),
    )
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=10.0),
        steps=1500,
        checkpoint_every=500,
        sample_every=500,
    )
