"""Class-conditional non-saturating GAN with R1 on handwritten digits; a few minutes on a CPU."""

from genjax.adversarial.penalties import R1
from genjax.data import Data, Digits, Scale
from genjax.experiment import Experiment
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.objectives.gan import GAN
from genjax.optimizers import Adam


def get_experiment() -> Experiment:
    """Two players, Adam without momentum."""
    data = Data(Digits(), (Scale(0.0, 16.0),))
    objective = GAN(
        generator=ConvDecoder(channels=(64, 32)),
        discriminator=ConvEncoder(channels=(32, 64), norm="none", activation="leaky_relu"),
        shape=data.shape,
        latent=64,
        classes=data.classes,
        penalties=(R1(1.0),),
    )
    adam = Adam(learning_rate=1e-3, b1=0.0, b2=0.99)
    return Experiment(
        objective=objective,
        data=data,
        optimizer={"discriminator": adam, "generator": adam},
        steps=1000,
        checkpoint_every=500,
        sample_every=500,
    )
