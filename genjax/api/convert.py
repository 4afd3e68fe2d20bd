"""Language models between Hugging Face's files and work directories; adapters merged into what they adapt."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from genjax.core.errors import UserError
from genjax.core.objective import Adapter
from genjax.core.types import Extra, Params
from genjax.data import TokenizedText
from genjax.data.text.tokenized import train_tokenizer
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.parallel.console import say
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.loop import prepare
from genjax.training.workdir import load_state, open_workdir, plain, reopen, reopen_trained

CONFIG = "ar_gpt2"


def bring_in(folder: str, workdir: Path, overrides: Iterable[tuple[str, str]] = ()) -> None:
    """Makes a work directory, at step 0, of a folder's model; parameters and their average are its weights.

    Args:
        folder: in Hugging Face's layout, with a tokenizer.json.
        workdir: to make.
        overrides: of the config `ar_gpt2:FOLDER`.

    Raises:
        UserError: a file is missing or damaged, or the weights are not of the network that config.json describes.
    """
    spec = f"{CONFIG}:{folder}"
    experiment = experiments.load(spec, overrides)
    _, params, _ = huggingface.read(Path(folder))
    _write(experiment, spec, workdir, {"net": params}, None, folder)


def bring_merged(source: Path, workdir: Path) -> None:
    """Makes a work directory, at step 0, of what an adapter has made of the model that it adapts.

    Args:
        source: work directory of an adapter, as LoRA.
        workdir: to make; sampled, evaluated, edited, converted and trained as any of the inner objective.

    Raises:
        UserError: no such run, or it has no adapter.
    """
    run = reopen(source, ())
    if not isinstance(run.experiment.objective, Adapter):
        raise UserError(f"{source} has no adapter to merge: its objective trains its parameters themselves")
    run, state = plain(run, load_state(run, source))
    _write(run.experiment, str(source / experiments.CONFIG_COPY), workdir, state.ema, state.extra, source)


def _write(
    experiment: Experiment, spec: str, workdir: Path, params: Params, extra: Extra | None, source: object
) -> None:
    """Makes a work directory of given parameters, and extra if it is not as the objective makes it.

    Raises:
        UserError: the directory holds a run, or the parameters are of other shapes.
    """
    run = prepare(experiment)
    if (workdir / experiments.CHECKPOINTS).exists():
        raise UserError(f"{workdir} holds a run: choose another --workdir")
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
    open_workdir(experiment, spec, workdir)
    with Checkpoints(workdir / experiments.CHECKPOINTS) as checkpoints:
        checkpoints.save(0, state)
    say(f"wrote {workdir}: {sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters")


def bring_out(workdir: Path, folder: Path) -> None:
    """Writes the moving average of a work directory's language model, with its tokenizer if it has one.

    Raises:
        UserError: no such run, or a network that Hugging Face's layout has no names for.
    """
    run, state = reopen_trained(workdir, ())
    objective, source = run.experiment.objective, run.experiment.data.source
    if not isinstance(objective, Autoregressive) or not isinstance(objective.net, TokenTransformer):
        raise UserError(f"{workdir} holds no transformer over tokens")
    params = jax.device_get(state.ema["net"])
    ends = objective.stop[0] if objective.stop else None
    kind = huggingface.write(folder, objective.net, params, {"bos_token_id": ends, "eos_token_id": ends})
    if isinstance(source, TokenizedText):
        shutil.copyfile(source.tokenizer, folder / "tokenizer.json")
    say(f"wrote {folder} ({kind})")


def learn_tokens(text: Path, size: int, target: Path) -> None:
    """Learns a byte-pair encoding of a text and writes it; see `tokenized.train_tokenizer`.

    Raises:
        UserError: the text cannot be read, or the encoding not be written.
    """
    try:
        lines = text.read_text().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {text}: {error}") from None
    tokenizer = train_tokenizer(lines, size, target)
    say(f"wrote {target}: {tokenizer.get_vocab_size()} tokens")
