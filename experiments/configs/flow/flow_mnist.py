"""Class-conditional Glow on MNIST through TFDS.

Variants: mnist (the default), fashion_mnist. If TFDS has not prepared the data set yet, see the README;
--config.data.source.manual_dir=DIR reads the original files from a folder.
"""

from genjax.conditioning.labels import Labels
from genjax.data import TFDS, Data
from genjax.distributions.flows import models
from genjax.distributions.flows.bijector import Chain
from genjax.distributions.flows.linear import ActNorm
from genjax.distributions.flows.shape import Logit
from genjax.networks import ResNet
from genjax.objectives.flow import Flow
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "mnist") -> Experiment:
    """Bits per dimension come from a lower bound on the log-probability, through uniform dequantization."""
    data = Data(TFDS(variant))
    return Experiment(
        objective=Flow(
            bijector=Chain(
                (Logit(alpha=1e-3), ActNorm(), models.glow(ResNet(width=64, depth=1), scales=2, steps=8))
            ),
            shape=data.shape,
            condition=Labels(data.classes),
            levels=data.levels,
            temperature=0.7,
        ),
        data=data,
        optimizer=AdamW(learning_rate=1e-3, schedule=Cosine(warmup=200), clip=1.0),
        steps=3000,
        batch_size=64,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=1000, likelihoods=1000),
    )
