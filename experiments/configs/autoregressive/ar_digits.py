"""Class-conditional PixelCNN++ on scikit-learn's 8 x 8 digits of 17 grey levels; minutes on 2 cores.

ar_digits              PixelCNN++, a mixture of ten discretized logistic distributions: 1.72 bits/dim
ar_digits:categorical  PixelCNN++, a logit for each level: 1.83 bits/dim
ar_digits:gated        gated PixelCNN, a logit for each level: 2.08 bits/dim
ar_digits:logistic     gated PixelCNN, the mixture
"""

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.data import Data, Digits
from genjax.distributions.outputs import Categorical, LogisticMixture
from genjax.networks import PixelCNN, PixelCNNPP
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine

VARIANTS = ("mixture", "categorical", "gated", "logistic")


def get_experiment(variant: str = "mixture") -> Experiment:
    """Bits per dimension are exact."""
    if variant not in VARIANTS:
        raise UserError(f"ar_digits has the variants {', '.join(VARIANTS)}, not '{variant}'")
    data = Data(Digits())
    gated = PixelCNN(width=48, depth=6, hidden=96, levels=data.levels)
    plusplus = PixelCNNPP(width=32, blocks=2, scales=2, dropout=0.3, levels=data.levels)
    return Experiment(
        objective=Autoregressive(
            net=gated if variant in ("gated", "logistic") else plusplus,
            shape=data.shape,
            values=data.levels,
            output=LogisticMixture(10) if variant in ("mixture", "logistic") else Categorical(),
            condition=Labels(data.classes),
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
