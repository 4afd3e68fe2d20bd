"""LoRA: fine-tunes a language model on another text by factors of rank 8; minutes on 2 cores.

ar_lora            from runs/ar_bytes
ar_lora:WORKDIR    from another work directory of an autoregressive model, as `convert --source` makes
"""

import dataclasses

import ar_bytes

from genjax.objectives.lora import LoRA
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained

BASE = "runs/ar_bytes"


def get_experiment(variant: str = "") -> Experiment:
    """Choose the text: --config.data.source=TextFile --config.data.source.path=FILE.txt of bytes.

    For the tokens of a converted model --config.data.source.path=FILE.txt is enough.
    """
    base = Pretrained(variant or BASE)
    trained = base.experiment() if variant else ar_bytes.get_experiment()
    return Experiment(
        objective=LoRA(trained.objective, base, path=r"blocks/.*kernel$", rank=8, alpha=16.0),
        data=trained.data,
        optimizer=AdamW(learning_rate=1e-3, b2=0.99, weight_decay=0.0, schedule=Cosine(50, 0.1), clip=1.0),
        steps=500,
        batch_size=trained.batch_size,
        ema=0.99,
        checkpoint_every=250,
        evaluation=dataclasses.replace(trained.evaluation, likelihoods=200),
    )
