"""VAE on dynamically binarised MNIST in the setting of Burda et al. 2016 (arXiv:1509.00519): 784-200-200-50, tanh.

vae_mnist            ELBO
vae_mnist:iwae       importance-weighted bound, k = 50
vae_mnist:dreg       the same with the doubly reparameterised gradient

Published, after 3280 epochs: 86.76 nats (VAE) and 84.78 (IWAE, k = 50), by IWAE-5000 (their table 1). The shipped
config is a short run of 10 epochs; 100 epochs (--config.steps=60000, 16 minutes on one core) reach -91.0 nats. The full
run is --config.steps=1968000; the published evaluation, of all 10,000 test images in 40 minutes on one core, is

    ./launch/local.sh evaluate --workdir=DIR --config.objective.samples=5000 --config.evaluation.likelihoods=0
"""

from genjax.core.errors import UserError
from genjax.data import TFDS, Binarize, Data
from genjax.distributions.elbo import ELBO, IWAE, Bound, DReG
from genjax.distributions.likelihoods import Bernoulli
from genjax.networks import FeedForward
from genjax.objectives.latent.vae import VAE
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam, Cosine

BOUNDS: dict[str, Bound] = {"elbo": ELBO(), "iwae": IWAE(50), "dreg": DReG(50)}


def get_experiment(variant: str = "elbo") -> Experiment:
    """The likelihood is of binary images, re-sampled in every epoch; `samples` sets the bound of the evaluation."""
    if variant not in BOUNDS:
        raise UserError(f"vae_mnist has the variants {', '.join(BOUNDS)}, not '{variant}'")
    data = Data(TFDS("mnist"), (Binarize(high=255.0),))
    return Experiment(
        objective=VAE(
            encoder=FeedForward((200, 200)),
            decoder=FeedForward((200, 200)),
            shape=data.shape,
            latent=50,
            likelihood=Bernoulli(),
            bound=BOUNDS[variant],
            samples=50,
        ),
        data=data,
        optimizer=Adam(learning_rate=1e-3, schedule=Cosine(warmup=100)),
        steps=6000,
        batch_size=100,
        steps_per_call=10,
        checkpoint_every=3000,
        sample_every=3000,
        evaluation=Evaluation(num=1000, likelihoods=1000),
    )
