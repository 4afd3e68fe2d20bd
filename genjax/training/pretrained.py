"""A trained model as part of another one: a teacher to distil, an autoencoder to work inside.

The config of the new model says twice where its part comes from: as an objective, which says what the part is,
and as a `Pretrained`, which says where its values lie. The values are read once, when the new run's first
state is made, and are from then on in its own checkpoints. Whoever resumes, samples or evaluates it needs
shapes only, which the objective gives: the directory may be gone by then.

So `load` may be called where shapes are asked for (`jax.eval_shape`) and where values are (`jax.jit`): it
stands in the traced program as one operation, and the files are read when that is compiled.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

from genjax.core import checksums, tree
from genjax.core.errors import UserError
from genjax.core.objective import Objective
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment

Kinds = tuple[tuple[tuple[int, ...], str], ...]  # shape and dtype of each array


@dataclass(frozen=True)
class Pretrained:
    """What a work directory holds: an objective, and the moving average of its trained parameters.

    Attributes:
        workdir: of a run with a checkpoint, as given to `train --workdir`.
    """

    workdir: str

    def experiment(self) -> Experiment:
        """The run's experiment.

        Raises:
            UserError: there is no such directory, or it holds no run.
        """
        if not Path(self.workdir).is_dir():
            raise UserError(f"no work directory {self.workdir}: train the model that it should hold first")
        return experiments.restore(Path(self.workdir))

    def objective(self) -> Objective:
        """The run's objective; raises as `experiment` does."""
        return self.experiment().objective

    def parameters(self) -> tuple[Params, Extra]:
        """The moving average of the parameters and `extra`, NumPy, of the checkpoint that sampling would use.

        Raises:
            UserError: there is no such directory, or no intact checkpoint in it.
        """
        experiment, where = self.experiment(), Path(self.workdir).resolve()
        with Checkpoints(trained(where, experiment)) as checkpoints:
            step = checkpoints.latest()
        return _read(where, step)

    def load(self, objective: Objective, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The trained values of `objective`, in place of those that its `init` would make.

        Args:
            objective: what the directory should hold; only tunable fields may differ.
            key: typed PRNG key, for shapes only.
            batch: arrays or shapes, as the objective's `init` gets them.

        Returns:
            Parameters by player, and extra, as `objective.init(key, batch)`.

        Raises:
            UserError: when values are made, not when shapes are: the directory is missing, holds another objective,
                no intact checkpoint, or arrays of other shapes.
        """
        leaves, structure = jax.tree.flatten(jax.eval_shape(objective.init, key, batch))
        kinds = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        return jax.tree.unflatten(structure, _load.bind(source=self, objective=objective, kinds=kinds))

    def arrays(self, objective: Objective, kinds: Kinds) -> list[Array]:
        """The leaves of `parameters()`, after comparing the objective and the arrays with what is expected."""
        before, after = (tree.describe(o, "objective", tree.untunable) for o in (self.objective(), objective))
        for path, there, here in tree.differences(before, after):
            where = f"objective.{path}".rstrip(".")
            raise UserError(f"{self.workdir} holds another model: its {where} is {there}, expected {here}")
        leaves = jax.tree.leaves(self.parameters())
        for leaf, (shape, dtype) in zip(leaves, kinds, strict=True):
            if (leaf.shape, str(leaf.dtype)) != (shape, dtype):
                raise UserError(
                    f"{self.workdir} is of data of another shape: {leaf.dtype}{leaf.shape} where "
                    f"{dtype}{shape} is expected"
                )
        return [jnp.asarray(leaf) for leaf in leaves]


def workdirs(part: Any) -> list[Path]:
    """Where the models within an experiment, or within any part of one, come from, each once."""

    def walk(described: Any) -> Iterator[str]:
        if isinstance(described, list):
            described = dict(enumerate(described))
        if isinstance(described, dict):
            if str(described.get("@type", "")).endswith(f":{Pretrained.__name__}"):
                yield described["workdir"]
            for value in described.values():
                yield from walk(value)

    return [Path(path) for path in dict.fromkeys(walk(tree.describe(part)))]


def trained(workdir: Path, experiment: Experiment) -> Path:
    """The folder of the checkpoints that are used: of a run that is looked at, that of the best state.

    A run that was killed while its first look was kept has that folder and nothing whole in it: then all checkpoints'.
    """
    best = workdir / experiments.BEST
    watched = experiment.monitor.every and any(best.glob(f"*/{checksums.NAME}"))
    return best if watched else workdir / experiments.CHECKPOINTS


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
    """Reads a work directory; `step` tells one state of it from another, so that a longer run is read anew."""
    experiment = experiments.restore(where)
    shapes = _shapes(experiment)
    params, extra = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(trained(where, experiment)) as checkpoints:
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
