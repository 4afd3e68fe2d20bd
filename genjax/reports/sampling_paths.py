"""Pictures of samples and of sampling paths: strips of images and texts, velocity fields and densities in the plane."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from PIL import Image

from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb, HasPath, HasVelocity, HasWarp, num_classes
from genjax.core.types import named
from genjax.data import Data
from genjax.data.text.decode_text import decode
from genjax.evaluation.evaluate import load_split
from genjax.evaluation.sampling import gather
from genjax.reports.figures import density, field, tiles
from genjax.reports.pictures import grid, picture
from genjax.training.loop import Run
from genjax.training.step import TrainState

CELLS, ARROWS = 65, 17  # grid points along each axis of the plane


def show(data: Data, samples: np.ndarray) -> Image.Image:
    """A picture of samples in data units; images have one column for each class, points are drawn over test data."""
    if data.kind == "text":
        return picture(decode(data, samples), data.kind)
    options: dict[str, dict[str, Any]] = {
        "audio": {"rate": getattr(data.source, "rate", 0), "limit": 10},
        "image": {"levels": data.levels, "columns": data.classes},
        "points": {"reference": load_split(data, "test")["x"][:2000] if data.kind == "points" else None},
    }
    return picture(samples, data.kind, **options.get(data.kind, {}))


def draw_path(
    run: Run, state: TrainState, num: int, frames: int, seed: int, label: int | None = None
) -> tuple[Float[ndarray, " k"], Shaped[ndarray, "k num ..."]]:
    """Draws samples and records evenly spaced states of their paths, see `evenly_spaced_frames`.

    Args:
        run: its objective has paths.
        state: provides the EMA parameters.
        num: number of samples.
        frames: k, at least 2; fewer if the path has fewer states.
        seed: seed of the samples.
        label: class of all samples; None uses 0, 1, 2, ... cyclically.

    Returns:
        (times [k], states [k, num, ...] in data units), the first and the last state included.

    Raises:
        UserError: the objective has no sampling path, `frames` is less than 2, or the label is out of range.
    """
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, HasPath):
        raise UserError(f"{type(objective).__name__} samples in one step: there is no path to trace")
    if frames < 2:
        raise UserError(f"trace={frames} must be at least 2: the first and the last state")
    classes = num_classes(objective)
    if label is not None and not 0 <= label < classes:
        raise UserError(
            f"label={label}: this model has {f'classes 0 to {classes - 1}' if classes else 'no classes'}"
        )
    labels = np.arange(num, dtype=np.int32) % classes if classes else None
    cond = (
        None
        if labels is None
        else {"label": jnp.asarray(labels if label is None else np.full(num, label, np.int32))}
    )
    key = jax.random.fold_in(
        named(jax.random.key(seed), "samples"), 0
    )  # the key of the first call of `draw_samples`
    times, states = jax.jit(objective.path, static_argnums=3)(state.ema, state.extra, key, num, cond)
    times, states = gather(times), gather(states)
    chosen = evenly_spaced_frames(states, frames)
    return times[chosen], np.stack([data.inverse(states[i]) for i in chosen])


def evenly_spaced_frames(states: Shaped[ndarray, "n ..."], frames: int) -> Int[ndarray, " k"]:
    """Indices of states that are evenly spaced in path length: RMS change, or fraction of tokens changed.

    Args:
        states: states along a path.
        frames: number of states; fewer are returned if the path has fewer.

    Returns:
        Ascending indices, the first and the last state included.
    """
    moves = np.diff(states.astype(np.float64), axis=0).reshape(len(states) - 1, -1)
    lengths = (moves != 0).mean(1) if np.issubdtype(states.dtype, np.integer) else np.sqrt((moves**2).mean(1))
    distance = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, distance[-1], frames)
    nearest_state = np.abs(distance[None] - wanted[:, None]).argmin(axis=1)
    return np.unique([0, *nearest_state[1:-1], len(states) - 1])


def show_path(
    run: Run, state: TrainState, times: Float[ndarray, " k"], states: Shaped[ndarray, "k n ..."]
) -> Image.Image:
    """A picture of sampling paths: a strip for each image sample, a scatter plot for each time of points.

    Args:
        run: the run that drew the paths.
        state: provides the EMA parameters.
        times: times of the states.
        states: states in data units.

    Returns:
        An RGB picture.
    """
    data = run.experiment.data
    if data.kind == "points" and data.shape == (2,):
        return _plane(run, state, times, states)
    if data.kind == "image":
        strips = states.swapaxes(0, 1).reshape(-1, *states.shape[2:])
        shown = grid(strips, levels=data.levels or 256, columns=len(times))
        return tiles([("t = " + ", ".join(f"{t:.3g}" for t in times), shown)])
    captioned = [
        (f"t = {t:.3g}", picture(frame[:4], data.kind)) for t, frame in zip(times, states, strict=True)
    ]
    return tiles(captioned)


def _plane(run: Run, state: TrainState, times: ndarray, states: ndarray) -> Image.Image:
    """Points at each time over test data, with the velocity field if there is one; then the density."""
    objective, data = run.experiment.objective, run.experiment.data
    reference = load_split(data, "test")["x"][:1000].astype(np.float64)
    reach = 1.2 * float(np.abs(reference).max())
    window = (-reach, reach)
    shown, warped = [], warped_grids(run, state)
    for t, frame in zip(times, states, strict=True):
        arrows = None
        if isinstance(objective, HasVelocity):
            where = _lattice(window, ARROWS)
            arrows = (where, _velocity(run, state, where, float(t)))
        points = frame.astype(np.float64)
        shown.append((f"t = {t:.3g}", field(points, window, reference, arrows, warped.get(float(t)))))
    if isinstance(objective, HasLogProb) and objective.log_prob_kind:
        shown.append((objective.log_prob_kind, density(log_density(run, state, window), window)))
    return tiles(shown, columns=4)


def warped_grids(run: Run, state: TrainState) -> dict[float, Float[ndarray, "n n 2"]]:
    """Images of a grid over the base distribution's window after each layer of a flow, by time."""
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, HasWarp):
        return {}
    grid = jnp.asarray(_lattice(objective.window, CELLS), jnp.float32)
    times, states = map(gather, jax.jit(objective.warp)(state.ema, state.extra, grid))
    shape = (CELLS, CELLS, 2)
    moved = [data.inverse(points).astype(np.float64).reshape(shape) for points in states]
    return dict(zip(map(float, times), moved, strict=True))


def _lattice(window: tuple[float, float], count: int) -> Float[ndarray, "n 2"]:
    """count x count grid points of the window; the first coordinate varies fastest."""
    line = np.linspace(*window, count)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def _to_model(data: Data, x: Float[ndarray, "n 2"]) -> jax.Array:
    """Points in data units, transformed to model units."""
    return data.forward({"x": x.astype(data.source.dtype)}, jax.random.key(0), False)["x"]


def _velocity(run: Run, state: TrainState, x: Float[ndarray, "n 2"], t: float) -> Float[ndarray, "n 2"]:
    """The model's velocity in model units at points x in data units."""
    objective = run.experiment.objective
    assert isinstance(objective, HasVelocity)
    rate = jax.jit(objective.velocity)(
        state.ema, state.extra, _to_model(run.experiment.data, x), jnp.asarray(t)
    )
    return np.nan_to_num(gather(rate).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def log_density(run: Run, state: TrainState, window: tuple[float, float]) -> Float[ndarray, "n n"]:
    """log p in data units over a grid on a square window of the plane.

    Args:
        run: its objective has a likelihood.
        state: provides the EMA parameters.
        window: (low, high) of both axes.

    Returns:
        Nats, indexed [second coordinate, first coordinate].
    """
    objective, data = run.experiment.objective, run.experiment.data
    assert isinstance(objective, HasLogProb)
    batch = {"x": _to_model(data, _lattice(window, CELLS))}
    values = jax.jit(objective.log_prob)(state.ema, state.extra, batch, jax.random.key(0))
    return gather(values).astype(np.float64).reshape(CELLS, CELLS) + data.log_det()
