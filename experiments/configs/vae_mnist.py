"""VAE on dynamically binarized MNIST read through TFDS; prepare the data once with requirements-prepare.txt.

./launch/local.sh train --config=vae_mnist --config.data.source.data_dir=DIR [--config.data.source.manual_dir=FILES]

The original files are downloaded, or taken from `manual_dir`.
"""

from genjax.data import TFDS, Binarize, Data
from genjax.experiment import Evaluation, Experiment
from genjax.networks import MLP
from genjax.objectives.vae import VAE, Bernoulli
from genjax.optimizers import Adam, Cosine


def get_experiment() -> Experiment:
    """The setting of Kingma & Welling 2014 with residual MLPs: test nats are a lower bound."""
    data = Data(TFDS("mnist"), (Binarize(255.0),))
    return Experiment(
        objective=VAE(
            encoder=MLP(width=256, depth=2),
            decoder=MLP(width=256, depth=2),
            shape=(28, 28, 1),
            latent=32,
            likelihood=Bernoulli(),
        ),
        data=data,
        optimizer=Adam(learning_rate=1e-3, schedule=Cosine(warmup=100)),
        steps=6000,
        checkpoint_every=2000,
        sample_every=2000,
        evaluation=Evaluation(num=2000, batch_size=500),
    )
