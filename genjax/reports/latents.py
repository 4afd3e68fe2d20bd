"""Latent-space tasks of `api.edit` for autoencoders and for generators with latents N(0, I).

reconstruct  test images and their reconstructions
interpolate  between pairs of images, spherically or linearly in latent space
traverse     vary one latent at a time over -SPAN ... SPAN, the others fixed
manifold     of two latents: decoded images on a grid of quantiles of N(0, I)
             (Kingma & Welling 2014, arXiv:1312.6114, appendix A)
codes        frequency of each code on the test split
mix          coarse styles of one image with fine styles of another (Karras et al. 2019, arXiv:1812.04948, figure 3)

Autoencoders use images of the test split, generators use latents drawn from the prior.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from genjax.core.errors import UserError, nearest
from genjax.core.objective import HasDecoder, HasEncoder, HasLatents, HasStyles, HasValues, num_classes
from genjax.core.types import Array, Batch, named, root_key
from genjax.data import sweep
from genjax.evaluation.distances import load_split
from genjax.evaluation.held_out import eval_batch_size
from genjax.evaluation.sampling import gather
from genjax.networks.vector_quantizers import usage
from genjax.parallel import multihost
from genjax.parallel.mesh import shard_batch
from genjax.reports.figures import histogram
from genjax.reports.pictures import grid
from genjax.samplers.editing import Path, lerp, slerp
from genjax.training.experiment import Experiment
from genjax.training.loop import Run
from genjax.training.step import TrainState

SPAN = 3.0  # in standard deviations of the prior
SHOWN = 16  # most rows or columns of a picture

TaskResult = tuple[dict[str, np.ndarray], Image.Image]  # (arrays in data units, picture)


def between(
    a: Float[Array, "b ..."], b: Float[Array, "b ..."], points: int, path: Path
) -> Float[Array, "n b ..."]:
    """Interpolates between latents, both ends included.

    Args:
        a: latents at weight 0.
        b: latents at weight 1.
        points: n, number of weights evenly spaced over [0, 1].
        path: "spherical" (slerp) or "linear" (lerp).

    Returns:
        Latents [n, b, ...].
    """
    interpolate_at = slerp if path == "spherical" else lerp
    return jnp.stack([interpolate_at(a, b, jnp.asarray(w, a.dtype)) for w in np.linspace(0.0, 1.0, points)])


def traversals(z: Float[Array, "b ..."], points: int, span: float = SPAN) -> Float[Array, "b d n ..."]:
    """Sets one latent dimension at a time to evenly spaced values.

    Args:
        z: latents with d numbers each.
        points: n, number of values.
        span: the values run from -span to span.

    Returns:
        Latents [b, d, n, ...]: entry [:, i, j] has dimension i at the j-th value.
    """
    flat = z.reshape(len(z), -1)
    here = jnp.eye(flat.shape[1], dtype=bool)[None, :, None]
    values = jnp.linspace(-span, span, points).reshape(1, 1, -1, 1)
    return jnp.where(here, values, flat[:, None, None]).reshape(len(z), -1, points, *z.shape[1:])


def quantile_grid(points: int) -> Float[Array, "n 2"]:
    """points x points latents, evenly spaced in probability under N(0, I); the second coordinate decreases by row."""
    line = jax.scipy.stats.norm.ppf((jnp.arange(points) + 0.5) / points)
    across, up = jnp.meshgrid(line, line[::-1])
    return jnp.stack([across, up], axis=-1).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class View:
    """A trained autoencoder or generator with the options of a latent-space task.

    Attributes:
        run: its objective has a decoder.
        state: provides the EMA parameters.
        num: number of images; for interpolate, of pairs of images.
        points: interpolation points, values of each latent, or grid points along each side of the manifold.
        path: path of interpolate.
        label: class of all decoded images; None keeps the images' own classes (manifold: class 0).
        seed: seed of random latents.
    """

    run: Run
    state: TrainState
    num: int = 8
    points: int = 8
    path: Path = "spherical"
    label: int | None = None
    seed: int = 0

    @property
    def coder(self) -> HasDecoder:
        """The run's objective."""
        objective = self.run.experiment.objective
        assert isinstance(objective, HasDecoder)
        return objective

    def base_latents(self, count: int) -> tuple[Array, Array | None]:
        """(latents, labels or None) of the first test images, or prior draws with labels 0, 1, 2, ... cyclically."""
        if isinstance(self.coder, HasEncoder):
            given = self.examples(count)
            return self.latents(given), given.get("label")
        key = named(root_key(self.seed), "explore")
        z, classes = (
            jax.random.normal(key, (count, *self.coder.latent_shape)),
            num_classes(self.coder),
        )
        return z, jnp.arange(count, dtype=jnp.int32) % classes if classes else None

    def examples(self, count: int) -> Batch:
        """The first `count` test examples in data units."""
        there = load_split(self.run.experiment.data, "test")
        if len(there["x"]) < count:
            raise UserError(f"num={self.num} needs {count} test images, but there are {len(there['x'])}")
        return {name: jnp.asarray(rows[:count]) for name, rows in there.items()}

    def latents(self, examples: Batch) -> Array:
        """Encodes examples in data units."""
        assert isinstance(self.coder, HasEncoder)
        key = named(root_key(self.seed), "explore")
        seen = self.run.experiment.data.forward(examples, key, False)
        return jax.jit(self.coder.encode)(self.state.ema, self.state.extra, seen, named(key, "encode"))

    def images(self, z: Array, label: Array | None) -> np.ndarray:
        """Decodes latents [*n, *latent_shape] to images in data units; labels are broadcast to [*n]."""
        shape, data = self.coder.latent_shape, self.run.experiment.data
        outer = z.shape[: z.ndim - len(shape)]
        cond = self.condition(label, outer)
        key = named(root_key(self.seed), "decode")
        out = jax.jit(self.coder.decode)(self.state.ema, self.state.extra, z.reshape(-1, *shape), key, cond)
        return data.inverse(gather(out)).reshape(*outer, *data.shape)

    def condition(self, label: Array | None, outer: tuple[int, ...]) -> Batch | None:
        """Labels broadcast to [*outer] and flattened; None for an unconditional model."""
        if not num_classes(self.coder):
            return None
        label = jnp.zeros((), jnp.int32) if label is None else label
        label = label if self.label is None else jnp.asarray(self.label, jnp.int32)
        return {"label": jnp.broadcast_to(label, outer).reshape(-1)}

    def picture(self, images: np.ndarray) -> Image.Image:
        """A grid of images [rows, columns, ...], cropped to `SHOWN` rows and columns."""
        shown = images[:SHOWN, :SHOWN]
        levels = self.run.experiment.data.levels
        return grid(shown.reshape(-1, *shown.shape[2:]), levels=levels or 256, columns=shown.shape[1])


def reconstruct(view: View) -> TaskResult:
    """`input` and `samples` [num, ...]."""
    given = view.examples(view.num)
    out = view.images(view.latents(given), given.get("label"))
    x = np.asarray(given["x"])
    return {"input": x, "samples": out}, view.picture(np.stack([x, out]))


def interpolate(view: View) -> TaskResult:
    """`samples` [points, num, ...], with the class of the first image of each pair."""
    z, label = view.base_latents(2 * view.num)
    a, b = jnp.split(z, 2)
    out = view.images(between(a, b, view.points, view.path), None if label is None else label[: view.num])
    return {"samples": out}, view.picture(out.swapaxes(0, 1))


def traverse(view: View) -> TaskResult:
    """`samples` [num, latents, points, ...]; the picture shows the first image with a row for each latent."""
    start, label = view.base_latents(view.num)
    z = traversals(start, view.points)
    out = view.images(z, None if label is None else label[:, None, None])
    return {"samples": out}, view.picture(out[0])


def manifold(view: View) -> TaskResult:
    """`samples` [points, points, ...]."""
    if math.prod(view.coder.latent_shape) != 2:
        raise UserError(f"task=manifold needs 2 latents, but these have the shape {view.coder.latent_shape}")
    z = quantile_grid(view.points).reshape(view.points, view.points, *view.coder.latent_shape)
    out = view.images(z, None)
    return {"samples": out}, view.picture(out)


def codes(view: View) -> TaskResult:
    """`usage` [values]: relative frequency of each code on the test split."""
    objective, data, state = view.coder, view.run.experiment.data, view.state
    assert isinstance(objective, HasLatents)
    values = objective.values

    @jax.jit
    def count(batch: Batch) -> Array:
        seen = data.forward(batch, jax.random.key(0), False)
        found = objective.encode(state.ema, state.extra, seen, jax.random.key(0))
        return jax.vmap(functools.partial(usage, values=values))(found)

    mesh, rows = view.run.mesh, []
    size = eval_batch_size(view.run.experiment, mesh)
    batches = sweep(data.load("test"), size, *multihost.block(mesh, size))
    for batch, there in batches:
        rows.append(gather(count(shard_batch(batch, mesh)))[:there])
    shares = np.concatenate(rows).mean(axis=0)
    return {"usage": shares}, histogram(shares, "code")


def mix(view: View) -> TaskResult:
    """`samples` [num, num, ...]: coarse styles of row i, fine styles of column j, half of the layers each.

    The picture shows the source images at the head of each row and column.
    """
    objective, num, data = view.coder, view.num, view.run.experiment.data
    assert isinstance(objective, HasStyles)
    (z, label), key = view.base_latents(2 * num), named(root_key(view.seed), "decode")
    coarse, fine = (jnp.repeat(z[:num], num, axis=0), jnp.tile(z[num:], (num, 1)))
    cond = view.condition(None if label is None else label[:num, None], (num, num))
    mixed = jax.jit(objective.mix, static_argnums=4)
    out = mixed(view.state.ema, view.state.extra, coarse, fine, objective.styles // 2, key, cond)
    samples = data.inverse(gather(out)).reshape(num, num, *data.shape)
    own = view.images(z, label)
    blank = np.zeros_like(own[:1])
    rows = [np.concatenate([blank, own[num:]])]
    rows += [np.concatenate([own[i : i + 1], samples[i]]) for i in range(num)]
    return {"samples": samples, "coarse": own[:num], "fine": own[num:]}, view.picture(np.stack(rows))


TASKS: Mapping[str, Callable[[View], TaskResult]] = {
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "manifold": manifold,
    "codes": codes,
    "mix": mix,
}
NEEDS: Mapping[str, type] = {"reconstruct": HasEncoder, "codes": HasLatents, "mix": HasStyles}


def check(experiment: Experiment, task: str, *, num: int, points: int, label: int | None) -> None:
    """Validates a latent-space task for an experiment whose objective has a decoder.

    Args:
        experiment: of the trained run.
        task: one of TASKS.
        num: number of images, see `View`.
        points: see `View`.
        label: see `View`.

    Raises:
        UserError: the task is unknown, an option is out of range, or the objective does not support the task.
    """
    objective, data = experiment.objective, experiment.data
    if task not in TASKS:
        raise UserError(f"a {type(objective).__name__} has no task '{task}': {nearest(task, TASKS)}")
    if not isinstance(objective, NEEDS.get(task, HasDecoder)):
        raise UserError(f"task={task} cannot be done with a {type(objective).__name__}")
    if data.kind != "image":
        raise UserError(f"edits need images, but this run's data are {data.kind}")
    for name, value, least in (("num", num, 1), ("points", points, 2)):
        if value < least:
            raise UserError(f"{name}={value} must be at least {least}")
    values = objective.values if isinstance(objective, HasValues) else 0
    if task != "reconstruct" and (task == "codes") != bool(values):
        kind = "codes" if values else "real numbers"
        raise UserError(f"task={task} cannot be done: this run's latents are {kind}")
    classes = num_classes(objective)
    if label is not None and not 0 <= label < classes:
        known = f"classes 0 to {classes - 1}" if classes else "no classes"
        raise UserError(f"label={label}: this model has {known}")


def explore(view: View, task: str) -> TaskResult:
    """Runs one latent-space task.

    Args:
        view: the model and the options.
        task: one of TASKS.

    Returns:
        (arrays in data units, picture).

    Raises:
        UserError: as `check`.
    """
    check(view.run.experiment, task, num=view.num, points=view.points, label=view.label)
    return TASKS[task](view)
