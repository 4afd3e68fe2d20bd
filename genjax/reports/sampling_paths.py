"""Pictures of samples and of sampling paths, by the record of the data's kind (`kinds`)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from PIL import Image

from genjax.core.errors import UserError
from genjax.core.objective import HasPath, num_classes
from genjax.data import Data
from genjax.evaluation.sampling import gather, sampling_key
from genjax.reports.figures import tiles
from genjax.reports.kinds import DrawsPaths, drawing_of
from genjax.training.loop import Run
from genjax.training.step import TrainState


def show(data: Data, samples: np.ndarray) -> Image.Image:
    """A picture of samples in data units; see `kinds.Draws.draw`."""
    return drawing_of(data).draw(data, samples)


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
    times, states = jax.jit(objective.path, static_argnums=3)(
        state.ema, state.extra, sampling_key(seed), num, cond
    )
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
    """A picture of sampling paths; of each state, where the kind of data has no pictures of paths.

    Args:
        run: the run that drew the paths.
        state: provides the EMA parameters.
        times: times of the states.
        states: states in data units.

    Returns:
        An RGB picture.
    """
    data = run.experiment.data
    kind = drawing_of(data)
    if isinstance(kind, DrawsPaths):
        return kind.draw_path(run, state, times, states)
    return tiles(
        [(f"t = {t:.3g}", kind.draw(data, frame[:4])) for t, frame in zip(times, states, strict=True)]
    )
