"""Pictures of models of points in the plane: sampling paths, velocity fields, warped grids, densities."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from PIL import Image

from genjax.core.objective import HasLogProb, HasVelocity, HasWarp
from genjax.data import Data
from genjax.evaluation.distances import load_split
from genjax.evaluation.sampling import gather
from genjax.reports.figures import density, field, tiles
from genjax.training.loop import Run
from genjax.training.step import TrainState

CELLS, ARROWS = 65, 17  # grid points along each axis of the plane


def plane_path(
    run: Run, state: TrainState, times: Float[ndarray, " k"], states: Shaped[ndarray, "k n ..."]
) -> Image.Image:
    """Points at each time over test data, with the velocity field if there is one; then the density.

    Args:
        run: the run that drew the paths.
        state: provides the EMA parameters.
        times: times of the states.
        states: points in data units.

    Returns:
        An RGB picture.
    """
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
