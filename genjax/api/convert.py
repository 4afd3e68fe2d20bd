"""Converts language models between Hugging Face's layout and work directories; merges adapters into their base."""

import dataclasses
import io
import shutil
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from genjax.core.errors import UserError
from genjax.core.objective import Adapter
from genjax.core.types import Extra, Params
from genjax.data import TokenizedText
from genjax.data.text.reading import read_text
from genjax.data.text.tokenized import train_tokenizer
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.parallel.console import say
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.finite import check_state
from genjax.training.loop import prepare
from genjax.training.workdir import held, load_state, merge_adapters, open_workdir, reopen, reopen_trained

CONFIG = "ar_gpt2"


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
    _, params, _ = huggingface.read(Path(folder))
    _write(experiment, spec, workdir, {"net": params}, None, folder)


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
    run, state = merge_adapters(run, load_state(run, source))
    _write(run.experiment, str(source / experiments.CONFIG_COPY), workdir, state.ema, state.extra, source)


def _write(
    experiment: Experiment, spec: str, workdir: Path, params: Params, extra: Extra | None, source: object
) -> None:
    """Creates a work directory from parameters and, unless None, `extra`.

    Raises:
        UserError: the directory already holds a run, or the parameters have other shapes than the experiment's.
    """
    run = prepare(experiment)
    if (workdir / experiments.CHECKPOINTS).exists():
        raise UserError(f"{workdir} already holds a run: choose another workdir=DIR")
    state = run.make_state()

    def place(path: tuple, leaf: jax.Array, new: jax.Array | np.ndarray) -> jax.Array:
        if leaf.shape != new.shape:
            raise UserError(
                f"{source}: {jax.tree_util.keystr(path)} has the shape {new.shape}, expected {leaf.shape}"
            )
        return jax.device_put(new, leaf.sharding)

    loaded = lambda old: jax.tree_util.tree_map_with_path(place, dict(old), dict(params))
    extra = (
        state.extra if extra is None else jax.tree_util.tree_map_with_path(place, state.extra, dict(extra))
    )
    state = dataclasses.replace(state, params=loaded(state.params), ema=loaded(state.ema), extra=extra)
    with held(workdir):
        open_workdir(experiment, spec, workdir)
        with Checkpoints(workdir / experiments.CHECKPOINTS) as checkpoints:
            check_state(state, None)
            checkpoints.save(0, state)
    say(f"wrote {workdir}: {sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters")


def export_weights(workdir: Path, folder: Path) -> None:
    """Writes the EMA weights of a work directory's language model, and its tokenizer if it has one.

    Raises:
        UserError: there is no run, or Hugging Face's layout cannot represent its network.
    """
    run, state = reopen_trained(workdir, ())
    objective, source = run.experiment.objective, run.experiment.data.source
    if not isinstance(objective, Autoregressive) or not isinstance(objective.net, TokenTransformer):
        raise UserError(f"the model in {workdir} is not a transformer over tokens")
    params = jax.device_get(state.ema["net"])
    ends = objective.stop[0] if objective.stop else None
    kind = huggingface.write(folder, objective.net, params, {"bos_token_id": ends, "eos_token_id": ends})
    if isinstance(source, TokenizedText):
        shutil.copyfile(source.tokenizer, folder / "tokenizer.json")
    say(f"wrote {folder} ({kind})")


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
