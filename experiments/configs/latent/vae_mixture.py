"""VAE on a ring of eight Gaussians in the plane; a minute on a CPU."""

from genjax.data import Data, GaussianMixture, Scale
from genjax.networks import MLP
from genjax.objectives.latent.vae import VAE, Gaussian
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """The decoder's std is initialised to the mixture components' std, in the scale of the transformed data."""
    data = Data(GaussianMixture(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=VAE(
            encoder=MLP(width=128, depth=2),
            decoder=MLP(width=128, depth=2),
            shape=data.shape,
            latent=2,
            likelihood=Gaussian(std=0.05, learned=True, noisy=True),
        ),
        data=data,
        optimizer=AdamW(learning_rate=1e-3, schedule=Cosine(warmup=100), clip=10.0),
        steps=4000,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=2000,
        sample_every=2000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
