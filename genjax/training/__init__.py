"""Training: the experiment, its optimizers, the train step, the loop, checkpoints and work directories.

Imports: floors 1 and 2. Start with `experiment.py` (the configuration tree), then `step.py` and `loop.py`.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.training.encoded_data import Encoded
    from genjax.training.experiment import Evaluation, Experiment, Monitor
    from genjax.training.optimizers import SGD, Adam, AdamW, Lion, Muon, WeightClip
    from genjax.training.pretrained import Pretrained
    from genjax.training.schedules import Constant, Cosine, Linear

__all__, __getattr__, __dir__ = attach(__name__, __file__)
