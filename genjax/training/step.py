"""The train step that all objectives share.

    theta_i <- theta_i + update_i(grad_{theta_i} loss_i(theta, extra, batch)),   players i one after the other,
    ema_i   <- d ema_i + (1 - d) theta_i,   d = min(decay, (1 + n) / (10 + n)) after n steps.

A player is a parameter group with its own loss and optimizer. Each loss is a function of all players' parameters, those
before it already updated, and is differentiated with respect to its own player's only. Randomness is a function of
(seed, step, player), so that a resumed run draws the same numbers as an uninterrupted one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from genjax.core.objective import Aux, Context, Objective, Player
from genjax.core.types import Array, Batch, Extra, Key, Metrics, Params, PyTree, named, record

Transform = Callable[[Batch, Key, bool], Batch]  # raw batch, key, train -> the objective's batch
Reduce = Callable[[PyTree], PyTree]  # mean over replicas: identity under jit, pmean under pmap


@record
class TrainState:
    """The state that training carries from step to step.

    Attributes:
        step: int32 scalar, steps taken.
        params: by player, float32.
        opt_state: by player, the optimizer's state.
        extra: arrays that the losses update and no optimizer trains.
        ema: as params, the exponential moving average that samples and evaluations use.
    """

    step: PyTree  # not narrower: states of shapes and of shardings are TrainStates too
    params: Params
    opt_state: Mapping[str, PyTree]
    extra: Extra
    ema: Params


Optimizers = Mapping[str, optax.GradientTransformation]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(
    objective: Objective, optimizers: Optimizers, transform: Transform, seed: int, batch: Batch
) -> TrainState:
    """Makes the state of step 0, which depends on the seed and on the batch's shapes.

    Args:
        objective: initialises parameters and extra.
        optimizers: one for each player.
        transform: (raw batch, key, train) -> the objective's batch.
        seed: of the run.
        batch: a raw batch, for its shapes; its values matter for data-dependent initialisation only.

    Returns:
        The initial state; `ema` equals `params`.
    """
    key = named(jax.random.key(seed), "init")
    params, extra = objective.init(key, transform(batch, named(key, "data"), False))
    opt_state = {name: optimizers[name].init(params[name]) for name in params}
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), dict(params), opt_state, dict(extra), ema)


def ema_decay(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """EMA warm-up: the decay min(decay, (1 + n) / (10 + n)) after n steps."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def _gradient(name: str, player: Player, accumulate: int) -> Callable[..., Any]:
    """Value, aux and gradient of a player's loss in its own parameters, averaged over micro-batches."""

    def gradient(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        def loss(own: PyTree) -> tuple[Array, Aux]:
            return player.loss({**params, name: own}, extra, batch, ctx)

        return jax.value_and_grad(loss, has_aux=True)(params[name])

    if accumulate == 1:
        return gradient

    def accumulated(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        # Strided: each device splits its own rows, and no row changes devices.
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


def _player_update(
    name: str, player: Player, optimizer: optax.GradientTransformation, reduce: Reduce, accumulate: int
) -> Callable[..., Any]:
    """One player's update: the gradient in its own parameters, then its own optimizer."""
    gradient = _gradient(name, player, accumulate)

    def apply(params: Params, opt_state: PyTree, extra: Extra, batch: Batch, ctx: Context) -> Any:
        (value, aux), grads = reduce(gradient(params, extra, batch, ctx))
        updates, opt_state = optimizer.update(grads, opt_state, params[name])
        log = {"loss": value, "grad_norm": optax.tree.norm(grads), **aux.metrics}
        return optax.apply_updates(params[name], updates), opt_state, {**extra, **aux.extra}, log

    if player.every == 1:
        return apply

    def update(params: Params, opt_state: PyTree, extra: Extra, batch: Batch, ctx: Context) -> Any:
        def skip() -> Any:
            _, _, _, log = jax.eval_shape(apply, params, opt_state, extra, batch, ctx)
            return params[name], opt_state, dict(extra), jax.tree.map(jnp.zeros_like, log)

        due = ctx.step % player.every == 0
        *new, log = jax.lax.cond(due, lambda: apply(params, opt_state, extra, batch, ctx), skip)
        return *new, {**log, "updated": due.astype(jnp.float32)}

    return update


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
        objective: defines the players and their losses.
        optimizers: one for each player.
        transform: (raw batch, key, train) -> the objective's batch; called with train=True.
        seed: of the run; with the state's step it determines all randomness.
        ema: largest decay of the parameters' moving average, see `ema_decay`.
        accumulate: number of micro-batches that the batch is split into; must divide its size.
        axis: name of the mapped axis under `pmap`; None under `jit`.

    Returns:
        The step. Metrics are scalars named "player/metric". A player with `every` > 1 also reports "player/updated":
        1, or 0 in steps that skip it, where all its metrics are 0.
    """
    root = jax.random.key(seed)
    reduce = (lambda tree: jax.lax.pmean(tree, axis)) if axis else (lambda tree: tree)
    updates = {
        name: _player_update(name, player, optimizers[name], reduce, accumulate)
        for name, player in objective.players().items()
    }

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        if axis:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        seen = transform(batch, named(key, "data"), True)
        params, opt_state, extra = dict(state.params), dict(state.opt_state), dict(state.extra)
        metrics: dict[str, Array] = {}
        for name, update in updates.items():
            ctx = Context(named(key, name), state.step)
            params[name], opt_state[name], extra, log = update(params, opt_state[name], extra, seen, ctx)
            metrics |= {f"{name}/{metric}": value for metric, value in log.items()}
        decay = ema_decay(ema, state.step)
        average = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        return TrainState(state.step + 1, params, opt_state, extra, average), metrics

    return train_step


def make_eval_step(objective: Objective, transform: Transform) -> Callable[..., Metrics]:
    """Builds the pure function (params, extra, raw batch, key) -> metrics, without any update.

    Args:
        objective: defines the players and their losses.
        transform: (raw batch, key, train) -> the objective's batch; called with train=False.

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
    """Several steps in one compiled call: a scan over batches stacked on a new first axis.

    Args:
        step: (state, batch) -> (state, metrics).

    Returns:
        (state, batches [n, b, ...]) -> (state, metrics [n]).
    """
    return lambda state, batches: jax.lax.scan(step, state, batches)
