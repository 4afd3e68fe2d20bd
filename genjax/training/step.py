"""The one train step: every family's optimizer code, once.

    theta_i <- theta_i + update_i(grad_{theta_i} loss_i(theta, extra, batch)),   players i in turn,
    ema_i   <- d ema_i + (1 - d) theta_i,   d = min(decay, (1 + n) / (10 + n)) after n steps.

Each loss sees everyone's parameters and is differentiated in its own player's slot only, each player sees the
others' newest move. Randomness is a function of (seed, step, player), so that a resumed run continues with
the numbers that an uninterrupted one would have drawn.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from genjax.core.objective import Aux, Context, Objective, Player
from genjax.core.types import Array, Batch, Extra, Key, Metrics, Params, PyTree, named, record

Transform = Callable[[Batch, Key, bool], Batch]  # raw batch -> what the objective sees
Reduce = Callable[[PyTree], PyTree]  # mean over replicas: identity under jit, pmean under pmap


@record
class TrainState:
    """All that a run carries from step to step.

    Attributes:
        step: int32 scalar, steps taken.
        params: by player, float32.
        moments: by player, the optimizer's state.
        extra: carried, not trained.
        ema: as params, the exponential moving average that samples and evaluations use.
    """

    step: PyTree  # no narrower: a state of shapes or shardings is a TrainState too
    params: Params
    moments: Mapping[str, PyTree]
    extra: Extra
    ema: Params


Optimizers = Mapping[str, optax.GradientTransformation]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(
    objective: Objective, optimizers: Optimizers, transform: Transform, seed: int, batch: Batch
) -> TrainState:
    """Makes the state of step 0; a function of (seed, shapes) alone.

    Args:
        objective: gives parameters and extra.
        optimizers: one for each player.
        transform: as the data are transformed for the objective.
        seed: of the run.
        batch: an example of the raw data, for its shapes (and for data-dependent initialisation).

    Returns:
        The initial state; `ema` equals `params`.
    """
    key = named(jax.random.key(seed), "init")
    params, extra = objective.init(key, transform(batch, named(key, "data"), False))
    moments = {name: optimizers[name].init(params[name]) for name in params}
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), dict(params), moments, dict(extra), ema)


def ema_decay(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """min(decay, (1 + n) / (10 + n)) after n steps: a young average must forget its start."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def _gradient(name: str, player: Player, accumulate: int) -> Callable[..., Any]:
    """Value, aux and gradient of one player's loss in its own slot, averaged over micro-batches."""

    def gradient(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        def loss(own: PyTree) -> tuple[Array, Aux]:
            return player.loss({**params, name: own}, extra, batch, ctx)

        return jax.value_and_grad(loss, has_aux=True)(params[name])

    if accumulate == 1:
        return gradient

    def accumulated(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        # Strided, so that each device's rows of the batch are split and none has to move.
        parts = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(carry: Any, now: tuple[Batch, Array]) -> tuple[Any, None]:
            total, extra = carry
            part, index = now
            part_ctx = Context(jax.random.fold_in(ctx.key, index), ctx.step, ctx.train)
            (value, aux), grads = gradient(params, extra, part, part_ctx)
            total = jax.tree.map(jnp.add, total, (value, aux.metrics, grads))
            return (total, {**extra, **aux.extra}), None

        first = jax.tree.map(lambda x: x[0], parts)
        (value, aux), grads = jax.eval_shape(gradient, params, extra, first, ctx)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (value, aux.metrics, grads))
        (total, new), _ = jax.lax.scan(add, (zeros, dict(extra)), (parts, jnp.arange(accumulate)))
        value, metrics, grads = jax.tree.map(lambda x: x / accumulate, total)
        return (value, Aux(metrics, new)), grads

    return accumulated


def _turn(
    name: str, player: Player, optimizer: optax.GradientTransformation, reduce: Reduce, accumulate: int
) -> Callable[..., Any]:
    """One player's turn: gradient in its own slot only, then its own optimizer."""
    gradient = _gradient(name, player, accumulate)

    def move(params: Params, moments: PyTree, extra: Extra, batch: Batch, ctx: Context) -> Any:
        (value, aux), grads = reduce(gradient(params, extra, batch, ctx))
        updates, moments = optimizer.update(grads, moments, params[name])
        log = {"loss": value, "grad_norm": optax.tree.norm(grads), **aux.metrics}
        return optax.apply_updates(params[name], updates), moments, {**extra, **aux.extra}, log

    if player.every == 1:
        return move

    def turn(params: Params, moments: PyTree, extra: Extra, batch: Batch, ctx: Context) -> Any:
        def wait() -> Any:
            _, _, _, log = jax.eval_shape(move, params, moments, extra, batch, ctx)
            return params[name], moments, dict(extra), jax.tree.map(jnp.zeros_like, log)

        moves = ctx.step % player.every == 0
        go = lambda: move(params, moments, extra, batch, ctx)
        *moved, log = jax.lax.cond(moves, go, wait)
        return *moved, {**log, "moves": moves.astype(jnp.float32)}

    return turn


def make_train_step(
    objective: Objective,
    optimizers: Optimizers,
    transform: Transform,
    *,
    seed: int,
    ema: float = 0.999,
    accumulate: int = 1,
    axis: str | None = None,
) -> Step:
    """Builds the pure function (state, raw batch) -> (state, metrics).

    Args:
        objective: gives the players.
        optimizers: one for each player.
        transform: raw batch -> what the objective sees.
        seed: of the run; with the state's step it determines all randomness.
        ema: the largest decay of the moving average.
        accumulate: number of micro-batches that the batch is split into; must divide it.
        axis: name of the mapped axis under `pmap`; None under `jit`.

    Returns:
        The step. Metrics are named "player/metric"; those of a player with `every` > 1 are zeros with
        "player/moves" = 0 where it waited.
    """
    root = jax.random.key(seed)
    reduce = (lambda tree: jax.lax.pmean(tree, axis)) if axis else (lambda tree: tree)
    turns = {
        name: _turn(name, player, optimizers[name], reduce, accumulate)
        for name, player in objective.players().items()
    }

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        if axis:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        seen = transform(batch, named(key, "data"), True)
        params, moments, extra = dict(state.params), dict(state.moments), dict(state.extra)
        metrics: dict[str, Array] = {}
        for name, turn in turns.items():
            ctx = Context(named(key, name), state.step)
            params[name], moments[name], extra, log = turn(params, moments[name], extra, seen, ctx)
            metrics |= {f"{name}/{metric}": value for metric, value in log.items()}
        decay = ema_decay(ema, state.step)
        average = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        return TrainState(state.step + 1, params, moments, extra, average), metrics

    return train_step


def make_eval_step(objective: Objective, transform: Transform) -> Callable[..., Metrics]:
    """Builds the pure function (params, extra, raw batch, key) -> metrics, nothing moving.

    Args:
        objective: gives the players.
        transform: raw batch -> what the objective sees; called with train=False.

    Returns:
        The step; metrics are named "player/metric", as in training.
    """

    def eval_step(params: Params, extra: Extra, batch: Batch, key: Key) -> Metrics:
        seen = transform(batch, named(key, "data"), False)
        metrics: dict[str, Array] = {}
        for name, player in objective.players().items():
            ctx = Context(named(key, name), jnp.zeros((), jnp.int32), train=False)
            value, aux = player.loss(params, extra, seen, ctx)
            metrics |= {f"{name}/loss": value}
            metrics |= {f"{name}/{metric}": scalar for metric, scalar in aux.metrics.items()}
        return metrics

    return eval_step


def repeat(step: Step) -> Step:
    """Several steps in one compiled call: scans over batches stacked on a new first axis.

    Args:
        step: (state, batch) -> (state, metrics).

    Returns:
        (state, batches [n, b, ...]) -> (state, metrics [n]).
    """
    return lambda state, batches: jax.lax.scan(step, state, batches)
