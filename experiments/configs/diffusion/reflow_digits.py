"""Reflow of the model in runs/diffusion_digits: straight paths, few steps; four minutes on 2 cores."""

import diffusion_digits

from genjax.networks import UNet
from genjax.objectives.diffusion.distillation import Teacher
from genjax.objectives.diffusion.reflow import Reflow
from genjax.samplers.dpm import DPMSolverPP
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained


def get_experiment() -> Experiment:
    """Requires a trained diffusion_digits."""
    teacher = diffusion_digits.get_experiment()
    return Experiment(
        objective=Reflow(
            UNet(channels=24, multipliers=(1, 2), blocks=1, attention=(1,)),
            Teacher(diffusion_digits.model(), Pretrained("runs/diffusion_digits")),
            solver=DPMSolverPP(steps=6),
            steps=2,
        ),
        data=teacher.data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=500,
        batch_size=128,
        ema=0.99,
        checkpoint_every=250,
        sample_every=250,
        evaluation=Evaluation(num=1000),
    )
