"""Class-conditional consistency model of handwritten digits, one evaluation per sample; four minutes on 2 cores.

consistency_digits             consistency training, from data alone
consistency_digits:distilled   consistency distillation of the model in runs/diffusion_digits
"""

import dataclasses

import diffusion_digits

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.data import Data, Digits, Scale
from genjax.diffusion.prediction import Preconditioned
from genjax.diffusion.process import EDM
from genjax.diffusion.times import LogNormalSigma
from genjax.networks import UNet
from genjax.objectives.diffusion.consistency import Consistency, Doubling
from genjax.objectives.diffusion.distillation import Teacher
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained


def get_experiment(variant: str = "trained") -> Experiment:
    """The variant "distilled" requires a trained diffusion_digits."""
    if variant not in ("trained", "distilled"):
        raise UserError(f"consistency_digits has the variants trained and distilled, not '{variant}'")
    data = Data(Digits(), (Scale(0.0, 16.0),))
    objective = Consistency(
        net=UNet(channels=24, multipliers=(1, 2), blocks=1, attention=(1,), time_scale=20.0),
        shape=data.shape,
        condition=Labels(data.classes),
        process=EDM(sigma_min=0.01, sigma_max=40.0),
        predict=Preconditioned(sigma_data=0.7),
        times=LogNormalSigma(-0.5, 1.6, low=0.0),
        curriculum=Doubling(first=10, last=80, every=200),
        huber=0.03,
    )
    if variant == "distilled":
        teacher = diffusion_digits.model()
        objective = dataclasses.replace(
            objective,
            process=teacher.process,
            low=0.002,
            times=LogNormalSigma(-0.5, 1.6, low=0.002),
            curriculum=Doubling(first=20, last=20, every=1000),
            teacher=Teacher(teacher, Pretrained("runs/diffusion_digits")),
            solver="ddim",
        )
    return Experiment(
        objective=objective,
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=800,
        batch_size=128,
        ema=0.99,
        checkpoint_every=400,
        sample_every=400,
        evaluation=Evaluation(num=1000),
    )
