"""Class-conditional ladder VAE of five levels of latents (a small VDVAE) on handwritten digits; minutes on 2 cores.

./launch/local.sh sample --workdir=runs/ladder_digits --num=100 --config.objective.temperature=0.8
"""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.distributions.elbo import Beta
from genjax.distributions.likelihoods import DiscretizedLogistic
from genjax.networks import Ladder
from genjax.objectives.latent.ladder import LadderVAE
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Bits per dimension of the integers: the ELBO of a discrete likelihood, without dequantization."""
    source = Digits()
    data = Data(source, (Scale(0.0, source.levels - 1.0),))
    return Experiment(
        objective=LadderVAE(
            Ladder(channels=32, latent=4, blocks=(1, 2, 2)),
            shape=data.shape,
            condition=Labels(data.classes),
            likelihood=DiscretizedLogistic(source.levels),
            penalty=Beta(warmup=200),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=100.0),
        steps=1000,
        batch_size=128,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
    )
