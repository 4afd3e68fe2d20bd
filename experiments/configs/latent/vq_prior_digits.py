"""Class-conditional transformer over the codes of an autoencoder, such as vqvae_digits; two minutes on 2 cores.

./launch/local.sh train --config=vqvae_digits                       # first the autoencoder, in runs/vqvae_digits
./launch/local.sh train --config=vq_prior_digits[:WORKDIR]          # WORKDIR: of another one, like runs/vqgan_digits

The autoencoder and its data are those of WORKDIR; before it exists, those of vqvae_digits.
"""

from dataclasses import replace

import vqvae_digits

from genjax.conditioning.labels import Labels
from genjax.networks import TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.latent.latent import Latent
from genjax.training.encoded_data import Encoded
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained


def get_experiment(workdir: str = "runs/vqvae_digits") -> Experiment:
    """Samples are decoded and metrics are of digits. The codes of all data are computed once, if WORKDIR exists."""
    weights = Pretrained(workdir)
    coder, data = weights.latents(vqvae_digits.get_experiment(), discrete=True)
    return Experiment(
        objective=Latent(
            coder,
            weights,
            Autoregressive(
                net=TokenTransformer(width=64, depth=2, heads=4, dropout=0.3, causal=True),
                shape=coder.latent_shape,
                values=coder.values,
                condition=Labels(data.classes) if data.classes else None,
            ),
        ),
        data=replace(data, source=Encoded(data.source, weights)),
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0, weight_decay=0.1),
        steps=1200,
        batch_size=128,
        ema=0.99,
        checkpoint_every=600,
        sample_every=600,
    )
