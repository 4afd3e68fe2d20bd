"""Class-conditional ImageGPT (Chen et al. 2020) on MNIST through TFDS: a transformer over 784 pixels of 16 grey levels.

Variants: mnist (the default), fashion_mnist. If TFDS has not prepared the data set yet, see the README; the original
files are read from a folder with --config.data.source.manual_dir=DIR. Bits per dimension are those of the 16 levels.
"""

from genjax.conditioning.labels import Labels
from genjax.data import TFDS, Data, Quantize
from genjax.networks import TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine

LEVELS = 16


def get_experiment(variant: str = "mnist") -> Experiment:
    """Bits per dimension are exact."""
    data = Data(TFDS(variant), (Quantize(LEVELS),))
    return Experiment(
        objective=Autoregressive(
            net=TokenTransformer(depth=4, width=128, heads=4, causal=True, position="learned", bias=False),
            shape=data.shape,
            values=LEVELS,
            condition=Labels(data.classes),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, b2=0.95, weight_decay=0.1, schedule=Cosine(warmup=100), clip=1.0),
        steps=1000,
        batch_size=16,
        ema=0.99,
        checkpoint_every=250,
        sample_every=500,
        evaluation=Evaluation(num=500, batch_size=125, likelihoods=1000),
    )
