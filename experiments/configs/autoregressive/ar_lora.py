"""LoRA: fine-tunes a language model on another text by factors of rank 8; minutes on 2 cores.

ar_lora            from runs/ar_bytes
ar_lora:WORKDIR    from another work directory of an autoregressive model, as `convert --source` makes
ar_lora:FOLDER     from a model in Hugging Face's layout, GPT-2 or Llama, with its tokenizer
"""

import dataclasses
from pathlib import Path

import ar_bytes
import ar_gpt2

from genjax.core.objective import Weights
from genjax.networks import huggingface
from genjax.objectives.huggingface import HuggingFace
from genjax.objectives.lora import LoRA
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW, Cosine
from genjax.training.pretrained import Pretrained

BASE = "runs/ar_bytes"


def get_experiment(variant: str = "") -> Experiment:
    """Choose the text: --config.data.source=TextFile --config.data.source.path=FILE.txt of bytes.

    For the tokens of a converted model --config.data.source.path=FILE.txt is enough.
    """
    base: Weights = Pretrained(variant or BASE)
    if not variant:
        trained = ar_bytes.get_experiment()
    elif (Path(variant) / huggingface.CONFIG).is_file():
        base, trained = HuggingFace(variant), ar_gpt2.get_experiment(variant)
    else:
        trained = Pretrained(variant).experiment()
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
