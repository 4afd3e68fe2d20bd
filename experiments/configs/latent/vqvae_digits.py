"""VQ-VAE on handwritten digits: 4 x 4 codes of 64 values, a codebook of moving averages; a minute on 2 cores.

Its prior is a second run: --config=vq_prior_digits.
"""

from genjax.data import Data, Digits, Scale
from genjax.distributions.likelihoods import OptimalGaussian
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.networks.vector_quantizers import MovingCodebook
from genjax.objectives.latent.vqvae import VQVAE
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine

DATA = Data(Digits(), (Scale(0.0, 16.0),))


def model() -> VQVAE:
    """The autoencoder of the first stage."""
    return VQVAE(
        encoder=ConvEncoder(channels=(32,)),
        decoder=ConvDecoder(channels=(32,)),
        shape=DATA.shape,
        grid=(4, 4),
        quantizer=MovingCodebook(values=64, features=8, decay=0.98),
        likelihood=OptimalGaussian(),
    )


def get_experiment() -> Experiment:
    """Metrics: reconstruction error (`mse`, in the scale -1 ... 1) and perplexity of the held-out codes."""
    return Experiment(
        objective=model(),
        data=DATA,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=800,
        batch_size=128,
        ema=0.99,
        checkpoint_every=400,
        sample_every=400,
    )
