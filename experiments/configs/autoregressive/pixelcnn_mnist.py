"""Class-conditional PixelCNN++ on MNIST through TFDS, a mixture of logistics over 256 levels.

Variants: mnist (the default), fashion_mnist. If TFDS has not prepared the data set yet, see the README; the original
files are read from a folder with --config.data.source.manual_dir=DIR. Results on Fashion-MNIST: docs/comparison.md.
"""

from genjax.conditioning.labels import Labels
from genjax.data import TFDS, Data
from genjax.distributions.outputs import LogisticMixture
from genjax.networks import PixelCNNPP
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "mnist") -> Experiment:
    """Bits per dimension are exact."""
    data = Data(TFDS(variant))
    return Experiment(
        objective=Autoregressive(
            net=PixelCNNPP(width=24, blocks=1, scales=3, levels=data.levels),
            shape=data.shape,
            values=data.levels,
            output=LogisticMixture(5),
            condition=Labels(data.classes),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=2000,
        batch_size=32,
        ema=0.99,
        checkpoint_every=250,
        sample_every=1000,
        evaluation=Evaluation(num=1000, likelihoods=1000),
    )
