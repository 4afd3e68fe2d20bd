"""Class-conditional gated PixelCNN on scikit-learn's 8 x 8 digits of 17 grey levels; minutes on 2 cores.

ar_digits             a logit for each level
ar_digits:logistic    a mixture of ten discretized logistic distributions (PixelCNN++'s output)
"""

from genjax.data import Data, Digits
from genjax.emissions import Categorical, LogisticMixture
from genjax.errors import UserError
from genjax.experiment import Evaluation, Experiment
from genjax.networks import PixelCNN
from genjax.objectives.autoregressive import Autoregressive
from genjax.optimizers import AdamW, Cosine


def get_experiment(variant: str = "categorical") -> Experiment:
    """Bits per dimension are exact."""
    if variant not in ("categorical", "logistic"):
        raise UserError(f"ar_digits has the variants categorical and logistic, not '{variant}'")
    data = Data(Digits())
    return Experiment(
        objective=Autoregressive(
            net=PixelCNN(width=48, depth=6, hidden=96, levels=data.levels),
            shape=data.shape,
            values=data.levels,
            emission=Categorical() if variant == "categorical" else LogisticMixture(10),
            classes=data.classes,
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=1000,
        batch_size=64,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=1000),
    )
