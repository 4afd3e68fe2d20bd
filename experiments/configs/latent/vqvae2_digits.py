"""VQ-VAE-2 on handwritten digits: 2 x 2 codes above 4 x 4, of 32 values each; three minutes each on 2 cores.

vqvae2_digits                     the autoencoder, in runs/vqvae2_digits
vqvae2_digits:prior               a class-conditional transformer over its 20 codes, in runs/vqvae2_digits-prior

The prior of an autoencoder in another directory: vqvae2_digits:WORKDIR.
"""

from dataclasses import replace

from genjax.conditioning.labels import Labels
from genjax.core.objective import HasLatents, Objective
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


def prior(coder: HasLatents, weights: Pretrained, classes: int) -> Latent:
    """The second stage: p(top) p(bottom | top)."""
    net = TokenTransformer(width=64, depth=2, heads=4, position="learned", dropout=0.3, causal=True)
    condition = Labels(classes) if classes else None
    codes = Autoregressive(net=net, shape=coder.latent_shape, values=coder.values, condition=condition)
    return Latent(coder, weights, codes)


def get_experiment(variant: str = "") -> Experiment:
    """Without a variant the first stage; samples and metrics of the second are of digits."""
    if not variant:
        return _experiment(model(), DATA, steps=800, weight_decay=0.01)
    weights = Pretrained("runs/vqvae2_digits" if variant == "prior" else variant)
    coder, data = weights.latents(get_experiment(), discrete=True)
    data = replace(data, source=Encoded(data.source, weights))
    return _experiment(prior(coder, weights, data.classes), data, steps=1200, weight_decay=0.1)


def _experiment(objective: Objective, data: Data, *, steps: int, weight_decay: float) -> Experiment:
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0, weight_decay=weight_decay),
        steps=steps,
        batch_size=128,
        ema=0.99,
        checkpoint_every=400,
        sample_every=400,
    )
