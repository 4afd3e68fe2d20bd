"""Progressive distillation of the model in runs/diffusion_digits to one step; four minutes on 2 cores."""

import diffusion_digits

from genjax.objectives.diffusion.distillation import Teacher
from genjax.objectives.diffusion.progressive import Progressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Constant
from genjax.training.pretrained import Pretrained


def get_experiment() -> Experiment:
    """Requires a trained diffusion_digits. Stages of 8, 4, 2 and 1 steps."""
    teacher = diffusion_digits.get_experiment()
    return Experiment(
        objective=Progressive(
            Teacher(diffusion_digits.model(), Pretrained("runs/diffusion_digits")), first=8, last=1, every=150
        ),
        data=teacher.data,
        optimizer=AdamW(learning_rate=1e-3, schedule=Constant(warmup=50), clip=1.0),
        steps=600,
        batch_size=128,
        ema=0.98,
        checkpoint_every=300,
        sample_every=150,
        evaluation=Evaluation(num=1000),
    )
