"""Class-conditional convolutional VAE of grey levels on MNIST through TFDS.

Variants: mnist (the default), fashion_mnist. If TFDS has not prepared the data set yet, see the README;
--config.data.source.manual_dir=DIR reads the original files from a folder. Results on Fashion-MNIST:
docs/comparison.md; there --config.objective.likelihood=OptimalGaussian --config.objective.bound.penalty.beta=10
improves samples (Fréchet ratio 1.7 instead of 6.7) at a worse bound (7.1 bits/dim instead of 5.1). vae_mnist is for
binary images.
"""

from genjax.conditioning.labels import Labels
from genjax.data import TFDS, Data, Dequantize, Scale
from genjax.distributions.likelihoods import Gaussian
from genjax.networks import ConvDecoder, ConvEncoder
from genjax.objectives.latent.vae import VAE
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "mnist") -> Experiment:
    """Bits per dimension come from a bound: the images are dequantized."""
    data = Data(TFDS(variant), (Dequantize(), Scale(0.0, 256.0)))
    return Experiment(
        objective=VAE(
            encoder=ConvEncoder(channels=(32, 64)),
            decoder=ConvDecoder(channels=(64, 32)),
            shape=data.shape,
            latent=32,
            condition=Labels(data.classes),
            likelihood=Gaussian(std=0.3, learned=True),
        ),
        data=data,
        optimizer=AdamW(learning_rate=1e-3, schedule=Cosine(warmup=100), clip=10.0),
        steps=3000,
        batch_size=64,
        checkpoint_every=500,
        sample_every=1000,
        evaluation=Evaluation(num=1000, likelihoods=1000),
    )
