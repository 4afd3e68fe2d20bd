"""Class-conditional consistency model of MNIST through TFDS, trained on data alone, one evaluation per sample.

Variants: mnist (the default), fashion_mnist. If TFDS has not prepared the data set yet, see the README; a folder with
the original files is set by --config.data.source.manual_dir=DIR. Results on Fashion-MNIST: docs/comparison.md.
"""

from genjax.conditioning.labels import Labels
from genjax.data import TFDS, Data, Scale
from genjax.diffusion.prediction import Preconditioned
from genjax.diffusion.process import EDM
from genjax.diffusion.times import LogNormalSigma
from genjax.networks import UNet
from genjax.objectives.diffusion.consistency import Consistency, Doubling
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "mnist") -> Experiment:
    """The network of diffusion_mnist; the discretisation doubles every 300 steps, from 10 to 80."""
    data = Data(TFDS(variant), (Scale(0.0, 255.0),))
    return Experiment(
        objective=Consistency(
            net=UNet(channels=24, multipliers=(1, 2, 2), blocks=1, attention=(2,), time_scale=20.0),
            shape=data.shape,
            condition=Labels(data.classes),
            process=EDM(sigma_min=0.01, sigma_max=60.0),
            predict=Preconditioned(sigma_data=0.7),
            times=LogNormalSigma(-0.5, 1.6, low=0.0),
            curriculum=Doubling(first=10, last=80, every=300),
            huber=0.1,
        ),
        data=data,
        optimizer=AdamW(learning_rate=1e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1500,
        batch_size=64,
        ema=0.99,
        checkpoint_every=250,
        sample_every=500,
        evaluation=Evaluation(num=1000),
    )
