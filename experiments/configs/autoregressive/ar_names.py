"""A transformer over the characters of names, one name after the other; a minute on 2 cores.

ar_names          names that Python's standard library defines: functions, methods and classes
ar_names:FILE     the lines of a text file, e.g. first names
"""

from genjax.data import Data, Lines
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "") -> Experiment:
    """`nats` of evaluation.json is per name, `nats_per_token` per character, including the name's end.

    English first names (32,033 lines, 29,494 distinct): 2.09 ± 0.01 nats per character.
    """
    data = Data(Lines(variant, length=16 if variant else 32))
    return Experiment(
        objective=Autoregressive(
            net=gpt2(depth=4, width=64, heads=4, extra=1, dropout=0.1),
            shape=data.shape,
            values=data.levels,
            stop=(0,),
        ),
        data=data,
        optimizer=AdamW(learning_rate=3e-3, b2=0.99, weight_decay=0.1, schedule=Cosine(100, 0.1), clip=1.0),
        steps=2000,
        batch_size=64,
        ema=0.995,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=1000, batch_size=250, pictured=40),
    )
