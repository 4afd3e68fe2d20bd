"""Samples as pictures, and how they come about: path strips of images and texts, fields and densities in the plane."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from PIL import Image

from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb, HasPath, HasVelocity, HasWarp
from genjax.core.types import named
from genjax.data import Data
from genjax.data.decode_text import decode
from genjax.evaluation.evaluate import whole
from genjax.evaluation.sampling import gather
from genjax.reports.figures import density, field, tiles
from genjax.reports.pictures import grid, picture
from genjax.training.loop import Run
from genjax.training.step import TrainState

CELLS, ARROWS = 65, 17  # points along each axis of the plane


def show(data: Data, samples: np.ndarray) -> Image.Image:
    """A picture of samples in the data's own units; each class has its column, points lie over the data's."""
    if data.kind == "text":
        return picture(decode(data, samples), data.kind)
    options: dict[str, dict[str, Any]] = {
        "audio": {"rate": getattr(data.source, "rate", 0), "limit": 10},
        "image": {"levels": data.levels, "columns": data.classes},
        "points": {"reference": whole(data, "test")["x"][:2000] if data.kind == "points" else None},
    }
    return picture(samples, data.kind, **options.get(data.kind, {}))


def draw_path(
    run: Run, state: TrainState, num: int, frames: int, seed: int, label: int | None = None
) -> tuple[Float[ndarray, " k"], Shaped[ndarray, "k num ..."]]:
    """States on the way to samples, as far from one another as can be; the first and the last are among them.

    Args:
        run: its objective has paths.
        state: its moving average is used.
        num: samples.
        frames: k, at least 2; fewer if there are fewer states.
        seed: of the samples.
        label: one class for all; None takes the classes in turn.

    Returns:
        (times, states in the data's own units).

    Raises:
        UserError: the objective's samples do not come about step by step, or there is no such class.
    """
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, HasPath):
        raise UserError(
            f"the samples of {type(objective).__name__} come in one step: there is no path to trace"
        )
    if frames < 2:
        raise UserError(f"--trace={frames} must be at least 2: the beginning and the end")
    classes = getattr(objective, "classes", 0)
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
    key = jax.random.fold_in(named(jax.random.key(seed), "samples"), 0)  # as the first call of `draw_samples`
    times, states = jax.jit(objective.path, static_argnums=3)(state.ema, state.extra, key, num, cond)
    times, states = gather(times), gather(states)
    chosen = spread_frames(states, frames)
    return times[chosen], np.stack([data.inverse(states[i]) for i in chosen])


def spread_frames(states: Shaped[ndarray, "n ..."], frames: int) -> Int[ndarray, " k"]:
    """Indices of states evenly spread over the way that they go: root mean square change, or tokens changed.

    Args:
        states: along a path.
        frames: how many are wanted; fewer are given where the path has fewer.

    Returns:
        Ascending indices, the first and the last among them.
    """
    moves = np.diff(states.astype(np.float64), axis=0).reshape(len(states) - 1, -1)
    lengths = (moves != 0).mean(1) if np.issubdtype(states.dtype, np.integer) else np.sqrt((moves**2).mean(1))
    way = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, way[-1], frames)
    nearest_state = np.abs(way[None] - wanted[:, None]).argmin(axis=1)
    return np.unique([0, *nearest_state[1:-1], len(states) - 1])


def show_path(
    run: Run, state: TrainState, times: Float[ndarray, " k"], states: Shaped[ndarray, "k n ..."]
) -> Image.Image:
    """A picture of paths: for images a strip for each sample, for points a field for each time.

    Args:
        run: what the paths are of.
        state: its moving average is used.
        times: of the states.
        states: in the data's own units.
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
    """Points at each time over the data's, with the velocity field where there is one; then the density."""
    objective, data = run.experiment.objective, run.experiment.data
    reference = whole(data, "test")["x"][:1000].astype(np.float64)
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
    """A grid over the base's window by the times of the states that the model's layers make of it."""
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, HasWarp):
        return {}
    grid = jnp.asarray(_lattice(objective.window, CELLS), jnp.float32)
    times, states = map(gather, jax.jit(objective.warp)(state.ema, state.extra, grid))
    shape = (CELLS, CELLS, 2)
    moved = [data.inverse(points).astype(np.float64).reshape(shape) for points in states]
    return dict(zip(map(float, times), moved, strict=True))


def _lattice(window: tuple[float, float], count: int) -> Float[ndarray, "n 2"]:
    """count x count points of the window, the second coordinate's index the slower one."""
    line = np.linspace(*window, count)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def _seen(data: Data, x: Float[ndarray, "n 2"]) -> jax.Array:
    """Points of the data's own units as the model sees them."""
    return data.forward({"x": x.astype(data.source.dtype)}, jax.random.key(0), False)["x"]


def _velocity(run: Run, state: TrainState, x: Float[ndarray, "n 2"], t: float) -> Float[ndarray, "n 2"]:
    """The model's velocity, its length in the model's scale."""
    objective = run.experiment.objective
    assert isinstance(objective, HasVelocity)
    rate = jax.jit(objective.velocity)(state.ema, state.extra, _seen(run.experiment.data, x), jnp.asarray(t))
    return np.nan_to_num(gather(rate).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def log_density(run: Run, state: TrainState, window: tuple[float, float]) -> Float[ndarray, "n n"]:
    """log p over a square window of the plane in nats, in the data's own units: [second, first coordinate].

    Args:
        run: its objective has a likelihood.
        state: its moving average is used.
        window: (low, high) of both axes.
    """
    objective, data = run.experiment.objective, run.experiment.data
    assert isinstance(objective, HasLogProb)
    batch = {"x": _seen(data, _lattice(window, CELLS))}
    values = jax.jit(objective.log_prob)(state.ema, state.extra, batch, jax.random.key(0))
    return gather(values).astype(np.float64).reshape(CELLS, CELLS) + data.log_det()
