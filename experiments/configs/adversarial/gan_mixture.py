"""Non-saturating GAN with R1 on a ring of eight Gaussians in the plane; two minutes on a CPU."""

from genjax.adversarial.penalties import R1
from genjax.data import Data, GaussianMixture, Scale
from genjax.networks import MLP
from genjax.objectives.adversarial.gan import GAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam, Cosine


def get_experiment() -> Experiment:
    """The discriminator is larger than the generator and updated twice as often, to cover the modes."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=GAN(
            generator=MLP(width=64, depth=2, activation="relu"),
            discriminator=MLP(width=128, depth=3, activation="leaky_relu"),
            shape=data.shape,
            latent=2,
            penalties=(R1(0.2),),
            every=2,
        ),
        data=data,
        optimizer=Adam(learning_rate=1e-3, b1=0.0, b2=0.99, schedule=Cosine()),
        steps=3000,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
