"""Converts language models between Hugging Face's layout and work directories; merges adapters into their base."""

import dataclasses
import io
import shutil
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp

from genjax.core.errors import UserError
from genjax.core.files import writing
from genjax.core.objective import Adapter
from genjax.data import Data, TokenizedText, Tokens
from genjax.data.text.reading import read_text
from genjax.data.text.tokenized import train_tokenizer
from genjax.data.text.tokens import TOKENIZER
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.parallel.console import say
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.finite import check_state
from genjax.training.loop import Run, prepare
from genjax.training.step import TrainState
from genjax.training.workdir import held, load_state, merge_adapters, open_workdir, reopen, reopen_trained

CONFIG = "ar_gpt2"
TOKENIZER_FILES = (  # beside tokenizer.json
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def import_weights(folder: str, workdir: Path, overrides: Iterable[tuple[str, str]] = ()) -> None:
    """Creates a work directory at step 0 from a Hugging Face model; parameters and EMA are its weights.

    Args:
        folder: folder in Hugging Face's layout, with a tokenizer.json.
        workdir: work directory to create.
        overrides: (path, value) overrides of the config `ar_gpt2:FOLDER`.

    Raises:
        UserError: a file is missing or damaged, or the weights do not fit the network that config.json describes.
    """
    spec = f"{CONFIG}:{folder}"
    experiment = experiments.load(spec, overrides)
    _check_tokenizer(experiment.data, folder, huggingface.describe(Path(folder)).values)
    run = prepare(experiment)
    _write(run, spec, workdir, run.make_state())


def _check_tokenizer(data: Data, folder: str, values: int) -> None:
    """Checks that a model knows all tokens of its tokenizer; it may know more.

    Raises:
        UserError: it does not.
    """
    if data.levels > values:
        raise UserError(
            f"the tokenizer in {folder} has {data.levels:,} tokens, the weights have {values:,}: take the tokenizer "
            "that belongs to them"
        )


def export_merged(source: Path, workdir: Path) -> None:
    """Creates a work directory at step 0 with an adapter merged into its base model.

    Args:
        source: work directory of an adapter such as LoRA.
        workdir: work directory to create; a run of the inner objective.

    Raises:
        UserError: there is no run in `source`, or it has no adapter.
    """
    run = reopen(source, ())
    if not isinstance(run.experiment.objective, Adapter):
        raise UserError(f"{source} has no adapter to merge: its objective trains all parameters directly")
    run, trained = merge_adapters(run, load_state(run, source))
    run = prepare(dataclasses.replace(run.experiment, initial=None))
    state = run.make_state()
    place = lambda old, new: jax.device_put(new, old.sharding)
    params, extra = (
        jax.tree.map(place, *pair)
        for pair in ((state.params, dict(trained.ema)), (state.extra, dict(trained.extra)))
    )
    ema = jax.tree.map(jnp.copy, params)
    state = dataclasses.replace(state, params=params, ema=ema, extra=extra)
    _write(run, str(source / experiments.CONFIG_COPY), workdir, state)


def _write(run: Run, spec: str, workdir: Path, state: TrainState) -> None:
    """Creates a work directory at step 0.

    Raises:
        UserError: the directory already holds a run, or the state holds NaN.
    """
    if (workdir / experiments.CHECKPOINTS).exists():
        raise UserError(f"{workdir} already holds a run: choose another workdir=DIR")
    with held(workdir):
        open_workdir(run.experiment, spec, workdir)
        with Checkpoints(workdir / experiments.CHECKPOINTS) as checkpoints:
            check_state(state, None)
            checkpoints.save(0, state)
    say(f"wrote {workdir}: {sum(leaf.size for leaf in jax.tree.leaves(state.params)):,} parameters")


def export_weights(workdir: Path, folder: Path) -> None:
    """Writes the EMA weights of a work directory's language model, and its tokenizer if it has one.

    The other entries of config.json, generation_config.json and the tokenizer's files are those of the folder that the
    model was imported from, if it is still there.

    Raises:
        UserError: there is no run, Hugging Face's layout cannot represent its network, or the folder is the one that
            the model was imported from.
    """
    run, state = reopen_trained(workdir, ())
    objective, source = run.experiment.objective, run.experiment.data.source
    if not isinstance(objective, Autoregressive) or not isinstance(objective.net, TokenTransformer):
        raise UserError(f"the model in {workdir} is not a transformer over tokens")
    params = jax.device_get(state.ema["net"])
    tokenizer = _tokenizer(source)
    origin = None if tokenizer is None else tokenizer.parent
    if origin is not None and folder.resolve() == origin.resolve():
        raise UserError(f"{folder} is where the model was imported from: choose another target=FOLDER")
    first = None if objective.start else objective.first
    if origin is not None and (origin / huggingface.CONFIG).is_file():
        first = huggingface.describe(origin).bos
    ends = huggingface.ends(first, objective.stop)
    kind = huggingface.write(folder, objective.net, params, ends, origin=origin, length=objective.shape[0])
    if tokenizer is not None:
        with writing(folder):
            shutil.copyfile(tokenizer, folder / TOKENIZER)
            for name in TOKENIZER_FILES:
                if (tokenizer.parent / name).is_file():
                    shutil.copyfile(tokenizer.parent / name, folder / name)
    say(f"wrote {folder} ({kind})")


def _tokenizer(source: object) -> Path | None:
    """The tokenizer.json of a source; None if it has none."""
    if isinstance(source, TokenizedText):
        return Path(source.tokenizer)
    if isinstance(source, Tokens) and source.metadata["tokenizer"] == TOKENIZER:
        return Path(source.path) / TOKENIZER
    return None


def train_bpe(text: Path, size: int, target: Path) -> None:
    """Trains a byte-pair encoding on a text and writes it; see `tokenized.train_tokenizer`.

    Args:
        text: UTF-8 text file.
        size: number of tokens.
        target: path of the tokenizer.json to write.

    Raises:
        UserError: the text cannot be read, or the encoding cannot be written.
    """
    tokenizer = train_tokenizer(io.StringIO(read_text(str(text)), newline="\n"), size, target)
    say(f"wrote {target}: {tokenizer.get_vocab_size()} tokens")
