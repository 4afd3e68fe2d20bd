"""A trained model as part of another one: a teacher to distil, the autoencoder of a latent model.

The config of the new model gives the part twice: as an objective, which defines its architecture, and as a
`Pretrained`, which names the work directory of its values. The values are read once, when the new run initialises its
state, and are stored in its own checkpoints from then on. Resuming, sampling and evaluation need the shapes only,
which the objective determines: the work directory may be deleted by then.

So `load` works for shapes alone (`jax.eval_shape`) and for values (`jax.jit`): it is one operation of the traced
program, and the files are read when that is compiled.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

from genjax.core import checksums, tree
from genjax.core.errors import UserError
from genjax.core.objective import HasLatents, Objective
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree
from genjax.data import Data
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment

Kinds = tuple[tuple[tuple[int, ...], str], ...]  # shape and dtype of each array


@dataclass(frozen=True)
class Pretrained:
    """The trained model in a work directory: its objective, and the moving average of its parameters.

    Attributes:
        workdir: of a run with a checkpoint, as given to `train --workdir`.
    """

    workdir: str

    def experiment(self) -> Experiment:
        """The experiment of the run.

        Raises:
            UserError: there is no such directory, or it holds no run.
        """
        if not Path(self.workdir).is_dir():
            raise UserError(f"no work directory {self.workdir}: train the pretrained model first")
        return experiments.restore(Path(self.workdir))

    def objective(self) -> Objective:
        """The objective of the run; raises as `experiment` does."""
        return self.experiment().objective

    def latents(self, default: Experiment, *, discrete: bool) -> tuple[HasLatents, Data]:
        """The first stage of a model of latents.

        Args:
            default: the experiment of the first stage where the directory holds no run, so that the second stage can
                be described before the first is trained.
            discrete: whether the model is for codes, not for real latents.

        Returns:
            (autoencoder, its data).

        Raises:
            UserError: the run has no latents, or latents of the other kind.
        """
        exists = (Path(self.workdir) / experiments.DESCRIPTION).is_file()
        first = self.experiment() if exists else default
        kind = "codes" if discrete else "real latents"
        coder = first.objective
        if not isinstance(coder, HasLatents) or bool(coder.values) != discrete:
            raise UserError(f"{self.workdir} holds a {type(coder).__name__}, which has no {kind}")
        return coder, first.data

    def parameters(self) -> tuple[Params, Extra]:
        """The moving average of the parameters and `extra` as NumPy arrays, from the folder `checkpoint_folder`.

        Raises:
            UserError: there is no such directory, or no intact checkpoint in it.
        """
        experiment, where = self.experiment(), Path(self.workdir).resolve()
        with Checkpoints(checkpoint_folder(where, experiment)) as checkpoints:
            step = checkpoints.latest()
        return _read(where, step)

    def load(self, objective: Objective, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The trained values of `objective`, in place of the values of its `init`.

        Args:
            objective: must equal the run's objective except for tunable fields.
            key: typed PRNG key, for shapes only.
            batch: arrays or shapes, as the objective's `init` gets them.

        Returns:
            Parameters by player, and extra, as `objective.init(key, batch)`.

        Raises:
            UserError: when the values are computed (not for shapes alone): the directory is missing, or holds another
                objective, no intact checkpoint, or arrays of other shapes.
        """
        return load_leaves(self, objective, key, batch)

    def arrays(self, objective: Objective, kinds: Kinds) -> list[Array]:
        """The leaves of `parameters()`, after checking the objective, shapes and dtypes."""
        before, after = (tree.describe(o, "objective", tree.untunable) for o in (self.objective(), objective))
        for path, there, here in tree.differences(before, after):
            where = f"objective.{path}".rstrip(".")
            raise UserError(f"{self.workdir} holds another model: its {where} is {there}, expected {here}")
        leaves = jax.tree.leaves(self.parameters())
        for leaf, (shape, dtype) in zip(leaves, kinds, strict=True):
            if (leaf.shape, str(leaf.dtype)) != (shape, dtype):
                raise UserError(
                    f"{self.workdir} was trained on data of another shape: it holds {leaf.dtype}{leaf.shape}, "
                    f"expected {dtype}{shape}"
                )
        return [jnp.asarray(leaf) for leaf in leaves]


@runtime_checkable
class ReadsLeaves(Protocol):
    """Weights that are read from files."""

    def arrays(self, objective: Objective, kinds: Kinds) -> list[Array]:
        """The leaves of parameters and extra, of these shapes and dtypes."""
        ...


def load_leaves(source: ReadsLeaves, objective: Objective, key: Key, batch: Batch) -> tuple[Params, Extra]:
    """One operation of a traced program: it reads files when values are computed, not for shapes alone.

    Args:
        source: hashable.
        objective: whose parameters are loaded.
        key: typed PRNG key, for shapes only.
        batch: arrays or shapes, as the objective's `init` gets them.

    Returns:
        Parameters by player, and extra, as `objective.init(key, batch)`.
    """
    leaves, structure = jax.tree.flatten(jax.eval_shape(objective.init, key, batch))
    kinds = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    return jax.tree.unflatten(structure, _load.bind(source=source, objective=objective, kinds=kinds))


def workdirs(part: Any) -> list[Path]:
    """The work directories of all `Pretrained`s within an experiment or any part of one, without repetition."""

    def find(described: Any) -> Iterator[str]:
        if isinstance(described, list):
            described = dict(enumerate(described))
        if isinstance(described, dict):
            if str(described.get("@type", "")).endswith(f":{Pretrained.__name__}"):
                yield described["workdir"]
            for value in described.values():
                yield from find(value)

    return [Path(path) for path in dict.fromkeys(find(tree.describe(part)))]


def checkpoint_folder(workdir: Path, experiment: Experiment) -> Path:
    """The folder of the checkpoints that sampling and evaluation use.

    With periodic evaluation it is that of the best state, else that of all checkpoints; also if the best state is
    incomplete, because the run was killed while saving its first one.
    """
    best = workdir / experiments.BEST
    complete = experiment.monitor.every and any(best.glob(f"*/{checksums.NAME}"))
    return best if complete else workdir / experiments.CHECKPOINTS


def _shapes(experiment: Experiment) -> PyTree:
    """Shapes and dtypes of parameters and extra, without reading any data."""
    data, size = experiment.data, (experiment.batch_size,)
    batch = {"x": jax.ShapeDtypeStruct(size + data.shape, data.source.dtype)}
    if data.classes:
        batch["label"] = jax.ShapeDtypeStruct(size, np.int32)

    def init(key: Key, batch: Batch) -> Any:
        return experiment.objective.init(key, data.forward(batch, key, False))

    return jax.eval_shape(init, jax.random.key(0), batch)


@functools.lru_cache(maxsize=4)
def _read(where: Path, step: int | None) -> tuple[Params, Extra]:
    """Reads a work directory; `step` is part of the cache key, so that a run that has gone on is read again."""
    experiment = experiments.restore(where)
    shapes = _shapes(experiment)
    params, extra = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(checkpoint_folder(where, experiment)) as checkpoints:
        state = checkpoints.restore({"ema": params, "extra": extra}, partial=True)[1]
    return state["ema"], state["extra"]


_load = Primitive("pretrained")
_load.multiple_results = True
_load.def_impl(lambda *, source, objective, kinds: source.arrays(objective, kinds))
_load.def_abstract_eval(
    lambda *, kinds, **_: [ShapedArray(shape, jnp.dtype(dtype)) for shape, dtype in kinds]
)
mlir.register_lowering(
    _load,
    mlir.lower_fun(
        lambda *, source, objective, kinds: source.arrays(objective, kinds), multiple_results=True
    ),
)
