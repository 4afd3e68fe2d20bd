"""VQ-VAE-2 on handwritten digits: 2 x 2 codes above 4 x 4, of 32 values each; three minutes each on 2 cores.

vqvae2_digits                     the autoencoder, in runs/vqvae2_digits
vqvae2_digits:prior               a class-conditional transformer over its 20 codes, in runs/vqvae2_digits-prior

The prior of an autoencoder in another directory: vqvae2_digits:WORKDIR.
"""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.distributions.likelihoods import OptimalGaussian
from genjax.networks import ConvDecoder, ConvEncoder, TokenTransformer, UNet
from genjax.networks.vector_quantizers import MovingCodebook
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vqvae2 import VQVAE2
from genjax.training.encoded_data import Encoded
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained

DATA = Data(Digits(), (Scale(0.0, 16.0),))


def model() -> VQVAE2:
    """The autoencoder of the first stage."""
    codebook = MovingCodebook(values=32, features=8, decay=0.98)
    return VQVAE2(
        encoder=ConvEncoder(channels=(32,)),
        top_encoder=ConvEncoder(channels=(32,)),
        top_decoder=ConvDecoder(channels=(32,)),
        join=UNet(channels=32, multipliers=(1,), blocks=1, attention=(), zero_out=False),
        decoder=ConvDecoder(channels=(32,)),
        shape=DATA.shape,
        grid=(4, 4),
        top_grid=(2, 2),
        top=codebook,
        bottom=codebook,
        likelihood=OptimalGaussian(),
    )


def prior(workdir: str) -> Latent:
    """The second stage: p(top) p(bottom | top)."""
    coder = model()
    net = TokenTransformer(width=64, depth=2, heads=4, position="learned", dropout=0.3, causal=True)
    codes = Autoregressive(net=net, shape=coder.latent_shape, values=coder.values, condition=Labels(10))
    return Latent(coder, Pretrained(workdir), codes)


def get_experiment(variant: str = "") -> Experiment:
    """Without a variant the first stage; samples and metrics of the second are of digits."""
    workdir = "runs/vqvae2_digits" if variant == "prior" else variant
    return Experiment(
        objective=prior(workdir) if variant else model(),
        data=Data(Encoded(DATA.source, Pretrained(workdir)), DATA.transforms) if variant else DATA,
        optimizer=AdamW(
            learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0, weight_decay=0.1 if variant else 0.01
        ),
        steps=1200 if variant else 800,
        batch_size=128,
        ema=0.99,
        checkpoint_every=400,
        sample_every=400,
    )
