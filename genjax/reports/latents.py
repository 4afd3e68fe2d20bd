"""What latents stand for: the tasks of `edit` for autoencoders, and for generators of latents N(0, I).

reconstruct  test images, and what is decoded of their latents
interpolate  from one image to another, on the arc or on the chord between their latents
traverse     one latent after the other moved over -SPAN ... SPAN, the others as they are
manifold     of two latents: the images over the square of their quantiles under N(0, I)
             (Kingma & Welling 2014, arXiv:1312.6114, appendix A)
codes        how often each code occurs in the test split
mix          coarse styles of one image with the fine ones of another (Karras et al. 2019, arXiv:1812.04948, figure 3)

An autoencoder's images are those of the test split, a generator's those of draws.
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
from genjax.core.objective import HasDecoder, HasEncoder, HasLatents, HasStyles
from genjax.core.types import Array, Batch, named
from genjax.data import sweep
from genjax.evaluation.evaluate import whole
from genjax.evaluation.held_out import eval_batch_size
from genjax.evaluation.sampling import gather
from genjax.networks.vector_quantizers import usage
from genjax.parallel import multihost
from genjax.parallel.mesh import shard_batch
from genjax.reports.figures import histogram
from genjax.reports.pictures import grid
from genjax.samplers.editing import Path, lerp, slerp
from genjax.training.loop import Run
from genjax.training.step import TrainState

SPAN = 3.0  # standard deviations of the prior
SHOWN = 16  # rows or columns of a picture

Looked = tuple[dict[str, np.ndarray], Image.Image]  # arrays in the data's own units, a picture


def between(
    a: Float[Array, "b ..."], b: Float[Array, "b ..."], points: int, path: Path
) -> Float[Array, "n b ..."]:
    """Latents on the way from a to b, both among them, on the arc ("spherical") or the chord ("linear")."""
    way = slerp if path == "spherical" else lerp
    return jnp.stack([way(a, b, jnp.asarray(w, a.dtype)) for w in np.linspace(0.0, 1.0, points)])


def traversals(z: Float[Array, "b ..."], points: int, span: float = SPAN) -> Float[Array, "b d n ..."]:
    """Latents with one of their d numbers at a time set to `points` values from -span to span."""
    flat = z.reshape(len(z), -1)
    here = jnp.eye(flat.shape[1], dtype=bool)[None, :, None]
    values = jnp.linspace(-span, span, points).reshape(1, 1, -1, 1)
    return jnp.where(here, values, flat[:, None, None]).reshape(len(z), -1, points, *z.shape[1:])


def quantile_grid(points: int) -> Float[Array, "n 2"]:
    """points x points latents, evenly spaced in probability under N(0, I); the first row has the largest second one."""
    line = jax.scipy.stats.norm.ppf((jnp.arange(points) + 0.5) / points)
    across, up = jnp.meshgrid(line, line[::-1])
    return jnp.stack([across, up], axis=-1).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class View:
    """An autoencoder or a generator, the images that are looked at, and how.

    Attributes:
        run: its objective has a decoder.
        state: its moving average is used.
        num: images; of interpolate pairs of images.
        points: latents on the way, values of each latent, or latents along each side of the manifold.
        path: of interpolate.
        label: one class for all that is decoded; None keeps the images' own (of the manifold class 0).
        seed: of the latents' draws.
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

    def start(self, count: int) -> tuple[Array, Array | None]:
        """(latents, labels where there are any): of the first test images, or drawn, the classes in turn."""
        if isinstance(self.coder, HasEncoder):
            given = self.examples(count)
            return self.latents(given), given.get("label")
        key = named(jax.random.key(self.seed), "explore")
        z, classes = (
            jax.random.normal(key, (count, *self.coder.latent_shape)),
            getattr(self.coder, "classes", 0),
        )
        return z, jnp.arange(count, dtype=jnp.int32) % classes if classes else None

    def examples(self, count: int) -> Batch:
        """The first `count` test examples in the data's own units."""
        there = whole(self.run.experiment.data, "test")
        if len(there["x"]) < count:
            raise UserError(f"--num={self.num} needs {count} test images, and there are {len(there['x'])}")
        return {name: jnp.asarray(rows[:count]) for name, rows in there.items()}

    def latents(self, examples: Batch) -> Array:
        """Their latents."""
        assert isinstance(self.coder, HasEncoder)
        key = named(jax.random.key(self.seed), "explore")
        seen = self.run.experiment.data.forward(examples, key, False)
        return jax.jit(self.coder.encode)(self.state.ema, self.state.extra, seen, named(key, "encode"))

    def images(self, z: Array, label: Array | None) -> np.ndarray:
        """Decodes [*n, *latent_shape]; labels are given for, or broadcast to, [*n]."""
        shape, data = self.coder.latent_shape, self.run.experiment.data
        outer = z.shape[: z.ndim - len(shape)]
        cond = self.condition(label, outer)
        key = named(jax.random.key(self.seed), "decode")
        out = jax.jit(self.coder.decode)(self.state.ema, self.state.extra, z.reshape(-1, *shape), key, cond)
        return data.inverse(gather(out)).reshape(*outer, *data.shape)

    def condition(self, label: Array | None, outer: tuple[int, ...]) -> Batch | None:
        """Labels broadcast to [*outer] and flattened; None for a model without classes."""
        if not getattr(self.coder, "classes", 0):
            return None
        label = jnp.zeros((), jnp.int32) if label is None else label
        label = label if self.label is None else jnp.asarray(self.label, jnp.int32)
        return {"label": jnp.broadcast_to(label, outer).reshape(-1)}

    def picture(self, images: np.ndarray) -> Image.Image:
        """Images [rows, columns, ...], at most `SHOWN` of each."""
        shown = images[:SHOWN, :SHOWN]
        levels = self.run.experiment.data.levels
        return grid(shown.reshape(-1, *shown.shape[2:]), levels=levels or 256, columns=shown.shape[1])


def reconstruct(view: View) -> Looked:
    """`input` and `samples` [num, ...]."""
    given = view.examples(view.num)
    out = view.images(view.latents(given), given.get("label"))
    x = np.asarray(given["x"])
    return {"input": x, "samples": out}, view.picture(np.stack([x, out]))


def interpolate(view: View) -> Looked:
    """`samples` [points, num, ...], of the class of the first image of each pair."""
    z, label = view.start(2 * view.num)
    a, b = jnp.split(z, 2)
    out = view.images(between(a, b, view.points, view.path), None if label is None else label[: view.num])
    return {"samples": out}, view.picture(out.swapaxes(0, 1))


def traverse(view: View) -> Looked:
    """`samples` [num, latents, points, ...]; the picture is of the first image, a row for each latent."""
    start, label = view.start(view.num)
    z = traversals(start, view.points)
    out = view.images(z, None if label is None else label[:, None, None])
    return {"samples": out}, view.picture(out[0])


def manifold(view: View) -> Looked:
    """`samples` [points, points, ...]."""
    if math.prod(view.coder.latent_shape) != 2:
        raise UserError(
            f"--task=manifold needs 2 latents, and these have the shape {view.coder.latent_shape}"
        )
    z = quantile_grid(view.points).reshape(view.points, view.points, *view.coder.latent_shape)
    out = view.images(z, None)
    return {"samples": out}, view.picture(out)


def codes(view: View) -> Looked:
    """`usage` [values]: the share of each code among those of the test split."""
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


def mix(view: View) -> Looked:
    """`samples` [num, num, ...]: a row's coarse styles with a column's fine ones, half of the layers each.

    In the picture the images that give them stand at the head of each row and column.
    """
    objective, num, data = view.coder, view.num, view.run.experiment.data
    assert isinstance(objective, HasStyles)
    (z, label), key = view.start(2 * num), named(jax.random.key(view.seed), "decode")
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


TASKS: Mapping[str, Callable[[View], Looked]] = {
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "manifold": manifold,
    "codes": codes,
    "mix": mix,
}
NEEDS: Mapping[str, type] = {"reconstruct": HasEncoder, "codes": HasLatents, "mix": HasStyles}


def explore(view: View, task: str) -> Looked:
    """Does one task.

    Args:
        view: of what.
        task: one of TASKS.

    Returns:
        (arrays in the data's own units, a picture).

    Raises:
        UserError: this task cannot be done with this run.
    """
    objective, data = view.coder, view.run.experiment.data
    if task not in TASKS:
        raise UserError(f"a {type(objective).__name__} has no task '{task}': {nearest(task, TASKS)}")
    if not isinstance(objective, NEEDS.get(task, HasDecoder)):
        raise UserError(f"--task={task} cannot be done with a {type(objective).__name__}")
    if data.kind != "image":
        raise UserError(f"edits are of images, and this run's data are {data.kind}")
    for name, value, least in (("num", view.num, 1), ("points", view.points, 2)):
        if value < least:
            raise UserError(f"--{name}={value} must be at least {least}")
    values = getattr(objective, "values", 0)
    if task != "reconstruct" and (task == "codes") != bool(values):
        kind = "codes" if values else "real numbers"
        raise UserError(f"--task={task} cannot be done: this run's latents are {kind}")
    classes = getattr(objective, "classes", 0)
    if view.label is not None and not 0 <= view.label < classes:
        known = f"classes 0 to {classes - 1}" if classes else "no classes"
        raise UserError(f"--label={view.label}: this model has {known}")
    return TASKS[task](view)
