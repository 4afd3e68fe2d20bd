"""GPT-2 of 12 layers and width 768 for a GPU or TPU: on the bytes of Python's standard library, or from files.

ar_gpt2            from scratch, 85 million parameters, context 1024 bytes
ar_gpt2:TOKENS     from scratch on token files that `prepare` has written, in their vocabulary
ar_gpt2:FOLDER     fine-tunes a model in Hugging Face's layout, GPT-2 or Llama, with its tokenizer
"""

from pathlib import Path

from genjax.data import Data, StdlibBytes, TokenizedText, Tokens
from genjax.data.source import Source
from genjax.data.text import tokens
from genjax.data.text.tokens import TOKENIZER
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.huggingface import HuggingFace
from genjax.samplers.decoding import Decoding
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "") -> Experiment:
    """With a FOLDER, --config.data.source.path=FILE.txt is the training text; default: Python's standard library."""
    net, values, length = gpt2(extra=1, dtype="bfloat16", remat="dots"), 256, 1024
    stop: tuple[int, ...] = ()
    source: Source = StdlibBytes(length)
    first, initial = 0, None
    if variant and (Path(variant) / tokens.NAME).is_file():
        source = files = Tokens(variant, length)
        values, stop, variant = files.levels, () if files.end is None else (files.end,), ""
    elif variant:
        model = huggingface.describe(Path(variant))
        net, values, stop, length = model.net, model.values, model.eos, min(1024, model.length)
        first = model.bos if model.bos is not None else stop[0] if stop else 0
        source, initial = TokenizedText("", str(Path(variant) / TOKENIZER), length), HuggingFace(variant)
    return Experiment(
        objective=Autoregressive(
            net=net,
            shape=(length,),
            values=values,
            start=not variant,
            first=first,
            decoding=Decoding(temperature=0.8, top_p=0.95),
            stop=stop,
        ),
        data=Data(source),
        optimizer=AdamW(
            learning_rate=3e-5 if variant else 6e-4,
            b2=0.95,
            weight_decay=0.1,
            schedule=Cosine(100, 0.1),
            clip=1.0,
        ),
        steps=1000 if variant else 20_000,
        batch_size=8 if variant else 32,
        checkpoint_every=500,
        evaluation=Evaluation(num=8, batch_size=8, pictured=8, likelihoods=200),
        initial=initial,
    )
