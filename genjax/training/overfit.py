"""Overfits one batch: a check that takes seconds and tells whether every part of an objective learns.

A player passes if, on that batch and for fixed noise, its loss with its trained parameters is below its loss with its
initial ones, all other players' parameters and the extra state being the trained ones. For a single player this says
that its loss fell. In a game an update of one player can undo another's: there a player also passes if training has
changed its parameters and all of them have a finite gradient that is not zero.
"""

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import Batch, Params, named, root_key
from genjax.training.loop import Run, average
from genjax.training.step import LOSS, TrainState, make_eval_step

MAX_STEPS = 200
DRAWS = 8  # draws of the noise over which losses are averaged
SHOWN = 6  # names of layers in a message


def overfit(run: Run, report: Callable[[str], None] = lambda line: None) -> TrainState:
    """Trains on the batch of step 0 for the experiment's steps, at most `MAX_STEPS`.

    Args:
        run: the experiment on its devices.
        report: called with lines of progress.

    Returns:
        The final state.

    Raises:
        UserError: a player does not pass; names it and its layers whose gradient is zero or not finite.
    """
    state, batch = run.make_state(), run.batch(0, 1)
    initial = jax.tree.map(jnp.copy, state)
    steps = min(run.experiment.steps, MAX_STEPS)
    for step in range(steps):
        state, metrics = run.compiled(state, batch, False)
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            losses = {name: x for name, x in average([metrics]).items() if name.endswith(f"/{LOSS}")}
            report(f"one batch, step {step + 1}: " + ", ".join(f"{k} {x:.4g}" for k, x in losses.items()))
    raw = run.raw(0)
    for name, before, after in _losses(run, raw, initial, state):
        if after < before:
            report(f"{name}: the loss of one batch fell from {before:.4g} to {after:.4g}")
        elif (
            len(state.params) > 1
            and _moved(initial, state, name)
            and not gradient_faults(run, raw, name, state)
        ):
            report(
                f"{name}: the loss of one batch went from {before:.4g} to {after:.4g}; all parameters learn"
            )
        else:  # NaN included
            raise UserError(_message(run, raw, name, before, after, initial, state))
    return state


def _moved(initial: TrainState, state: TrainState, player: str) -> bool:
    """Whether training has changed every parameter array of a player, to finite values."""
    pairs = zip(jax.tree.leaves(initial.params[player]), jax.tree.leaves(state.params[player]), strict=True)
    return all(bool((old != new).any()) and bool(jnp.isfinite(new).all()) for old, new in pairs)


def _losses(
    run: Run, raw: Batch, initial: TrainState, state: TrainState
) -> Iterator[tuple[str, float, float]]:
    """(player, loss with its initial parameters, loss with its trained parameters) of each player with a loss."""
    step = jax.jit(make_eval_step(run.experiment.objective, run.experiment.data.forward))
    keys = jax.random.split(named(root_key(run.experiment.seed), "overfit"), DRAWS)

    def loss(player: str, params: Params) -> float:
        means = [step(params, state.extra, raw, key)[f"{player}/{LOSS}"].value for key in keys]
        return float(np.mean([float(mean) for mean in means]))

    for name, player in run.experiment.objective.players().items():
        if player.loss is not None:
            before = loss(name, {**state.params, name: initial.params[name]})
            yield name, before, loss(name, state.params)


def gradient_faults(run: Run, raw: Batch, player: str, state: TrainState) -> Mapping[str, str]:
    """Parameters of a player that a training step on this batch would not move, or would spoil.

    Args:
        run: the experiment on its devices.
        raw: the batch, as `Run.raw` gives it.
        player: its name; it has a loss.
        state: where the gradient is taken.

    Returns:
        Path -> "zero" or "not finite", for each parameter array whose whole gradient is zero, or has such a value.
    """
    objective = run.experiment.objective
    loss_fn = objective.players()[player].loss
    assert loss_fn is not None
    key = named(root_key(run.experiment.seed), "overfit")

    @jax.jit
    def gradient(params: Params) -> Params:
        batch = run.experiment.data.forward(raw, named(key, "data"), True)
        ctx = Context(named(key, player), state.step)
        loss = lambda own: loss_fn({**params, player: own}, state.extra, batch, ctx)[0]
        return jax.grad(loss)(params[player])

    faults = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(gradient(state.params))):
        if not np.isfinite(leaf).all():
            faults[jax.tree_util.keystr(path, simple=True, separator="/")] = "not finite"
        elif leaf.size and not leaf.any():
            faults[jax.tree_util.keystr(path, simple=True, separator="/")] = "zero"
    return faults


def _message(
    run: Run, raw: Batch, player: str, before: float, after: float, initial: TrainState, state: TrainState
) -> str:
    """One line on a player that did not pass; gradients are those after training, if its parameters are finite."""
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
    faults = gradient_faults(run, raw, player, state if finite else initial)
    line = f"player '{player}' did not overfit one batch: its loss went from {before:.4g} to {after:.4g}"
    if not faults:
        return f"{line}; all its parameters have a gradient: try another learning rate or more steps"
    kinds = {
        kind: [path for path, found in faults.items() if found == kind] for kind in ("zero", "not finite")
    }
    listed = lambda paths: (
        ", ".join(paths[:SHOWN]) + (f" and {len(paths) - SHOWN} more" if paths[SHOWN:] else "")
    )
    return f"{line}; " + "; ".join(f"the gradient is {k} in {listed(v)}" for k, v in kinds.items() if v)
