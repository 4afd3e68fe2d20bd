"""Class-conditional diffusion in the latents of a VAE, on handwritten digits: latent diffusion; two minutes on 2 cores.

./launch/local.sh train --config=kl_digits                                  # first the autoencoder, in runs/kl_digits
./launch/local.sh train --config=latent_diffusion_digits[:WORKDIR]          # WORKDIR: of another autoencoder
"""

import kl_digits

from genjax.conditioning.labels import Labels
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.networks import UNet
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.latent.latent import Latent
from genjax.samplers.ode import DDIM
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained


def get_experiment(workdir: str = "runs/kl_digits") -> Experiment:
    """The settings of diffusion_digits, except the network: half the resolution, so one level less."""
    weights = Pretrained(workdir)
    coder, data = weights.latents(kl_digits.get_experiment(), discrete=False)
    return Experiment(
        objective=Latent(
            coder,
            weights,
            Diffusion(
                net=UNet(channels=32, multipliers=(1,), blocks=1, attention=(0,), dropout=0.1),
                shape=coder.latent_shape,
                condition=Labels(data.classes, 0.1) if data.classes else None,
                guidance=ClassifierFree(scale=1.5),
                sampler=DDIM(steps=50),
                likelihood=OdeLikelihood(steps=0),  # no density: these digits are not dequantized
            ),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1000,
        batch_size=128,
        checkpoint_every=250,
        sample_every=500,
    )
