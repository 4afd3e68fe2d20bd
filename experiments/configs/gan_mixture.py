"""Non-saturating GAN with R1 on a ring of eight Gaussians in the plane; a minute on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.experiment import Evaluation, Experiment
from genjax.networks import MLP
from genjax.objectives.gan import GAN
from genjax.optimizers import Adam


def get_experiment() -> Experiment:
    """Whether all modes are covered is what a GAN is asked here."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=GAN(
            generator=MLP(width=64, depth=2),
            discriminator=MLP(width=64, depth=2),
            shape=data.shape,
            latent=16,
            r1=0.1,
        ),
        data=data,
        optimizer=Adam(learning_rate=5e-4, b1=0.0, b2=0.99),
        steps=3000,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
