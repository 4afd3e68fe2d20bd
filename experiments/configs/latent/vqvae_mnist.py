"""VQ-VAE on MNIST through TFDS, and its transformer prior: 7 x 7 codes of 128 values.

vqvae_mnist[:fashion_mnist]          the autoencoder, in runs/vqvae_mnist[-fashion_mnist]
vqvae_mnist:prior[-fashion_mnist]    a class-conditional transformer over its codes: the second stage

The shipped config runs one epoch of the first stage and two of the second.
"""

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError, nearest
from genjax.core.objective import HasLatents, Objective
from genjax.data import TFDS, Data, Scale
from genjax.distributions.likelihoods import OptimalGaussian
from genjax.networks import ConvDecoder, ConvEncoder, TokenTransformer
from genjax.networks.vector_quantizers import MovingCodebook
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vqvae import VQVAE
from genjax.training.encoded_data import Encoded
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained

NAMES = ("mnist", "fashion_mnist")
PRIORS = ("prior", "prior-fashion_mnist")


def model(shape: tuple[int, ...]) -> VQVAE:
    """The autoencoder of the first stage."""
    return VQVAE(
        encoder=ConvEncoder(channels=(16, 32)),
        decoder=ConvDecoder(channels=(32, 16)),
        shape=shape,
        grid=(7, 7),
        quantizer=MovingCodebook(values=128, features=16),
        likelihood=OptimalGaussian(),
    )


def prior(coder: HasLatents, weights: Pretrained) -> Latent:
    """The second stage."""
    net = TokenTransformer(width=192, depth=6, heads=6, dropout=0.1, causal=True)
    codes = Autoregressive(net=net, shape=coder.latent_shape, values=coder.values, condition=Labels(10))
    return Latent(coder, weights, codes)


def get_experiment(variant: str = "mnist") -> Experiment:
    """Metrics of the first stage are reconstruction error and perplexity; of the second, sample quality."""
    second, name = variant.startswith("prior"), variant.removeprefix("prior").removeprefix("-") or "mnist"
    if name not in NAMES:
        raise UserError(f"vqvae_mnist has no '{variant}': {nearest(variant, (*NAMES, *PRIORS))}")
    data = Data(TFDS(name), (Scale(0.0, 255.0),))
    objective: Objective = model(data.shape)
    if second:
        weights = Pretrained("runs/vqvae_mnist" if name == "mnist" else f"runs/vqvae_mnist-{name}")
        coder, data = weights.latents(get_experiment(name), discrete=True)
        objective = prior(coder, weights)
        data = Data(Encoded(data.source, weights), data.transforms)
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(
            learning_rate=1e-3, schedule=Cosine(warmup=100), clip=1.0, weight_decay=0.1 if second else 0.01
        ),
        steps=2000 if second else 1000,
        batch_size=64,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=1000, likelihoods=1000),
    )
