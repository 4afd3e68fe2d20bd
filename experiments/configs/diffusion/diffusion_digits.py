"""Class-conditional score-based diffusion (VP SDE) on scikit-learn's handwritten digits; four minutes on 2 cores."""

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.threshold import Static
from genjax.networks import UNet
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.ode import DDIM
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def model() -> Diffusion:
    """The objective; also the teacher of the distillation configs."""
    data = Data(Digits(), (Scale(0.0, 16.0),))
    return Diffusion(
        net=UNet(channels=24, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.1),
        shape=data.shape,
        condition=Labels(data.classes, 0.1),
        guidance=ClassifierFree(scale=1.5),
        threshold=Static(bound=1.0),
        sampler=DDIM(steps=50),
        likelihood=OdeLikelihood(steps=0),  # no density: these digits are not dequantized
    )


def get_experiment() -> Experiment:
    """The main job."""
    return Experiment(
        objective=model(),
        data=Data(Digits(), (Scale(0.0, 16.0),)),
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1000,
        batch_size=128,
        checkpoint_every=250,
        sample_every=500,
        evaluation=Evaluation(num=1000),
    )
