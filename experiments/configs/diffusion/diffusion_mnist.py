"""Class-conditional score-based diffusion (VP SDE, v-prediction) on MNIST through TFDS; 20 minutes on 2 cores.

Variants: mnist (the default), fashion_mnist. If TFDS has not prepared the data set yet, see the README; a folder with
the original files is set by --config.data.source.manual_dir=DIR.
"""

from genjax.conditioning.labels import Labels
from genjax.data import TFDS, Data, Dequantize, Scale
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import V
from genjax.networks import UNet
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.ode import DDIM
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "mnist") -> Experiment:
    """Bits per dimension of dequantized images by the probability-flow ODE; below 200 steps they are underestimated."""
    data = Data(TFDS(variant), (Dequantize(), Scale(0.0, 256.0)))
    objective = Diffusion(
        net=UNet(channels=24, multipliers=(1, 2, 2), blocks=1, attention=(2,)),
        shape=data.shape,
        condition=Labels(data.classes, 0.1),
        predict=V(),
        sampler=DDIM(steps=50),
        likelihood=OdeLikelihood(steps=200),
    )
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1500,
        batch_size=64,
        checkpoint_every=250,
        sample_every=250,
        evaluation=Evaluation(num=1000, likelihoods=100),
    )
