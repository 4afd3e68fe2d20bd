"""The train step that all objectives share.

    theta_i <- theta_i + update_i(grad_{theta_i} loss_i(theta, extra, batch)),   players i one after the other,
    ema_i   <- d ema_i + (1 - d) theta_i,   d = min(decay, (1 + n) / (10 + n)) after n steps.

A player is a parameter group with its own loss and optimizer. Each loss is a function of all players' parameters, those
before it already updated, and is differentiated with respect to its own player's only. Randomness is a function of
(seed, step, player), so that a resumed run draws the same numbers as an uninterrupted one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Context, Mean, Objective, Player, UpdateFn, Weights
from genjax.core.types import Array, Batch, Extra, Key, Metrics, Params, PyTree, named, record, root_key

Transform = Callable[[Batch, Key, bool], Batch]  # raw batch, key, train -> the objective's batch
Reduce = Callable[[PyTree], PyTree]  # sum over replicas
LOSS, GRADS = "loss", "gradients"


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
    objective: Objective,
    optimizers: Optimizers,
    transform: Transform,
    seed: int,
    batch: Batch,
    initial: Weights | None = None,
) -> TrainState:
    """Makes the state of step 0, which depends on the seed and on the batch's shapes.

    Args:
        objective: initialises parameters and extra.
        optimizers: one for each player.
        transform: (raw batch, key, train) -> the objective's batch.
        seed: of the run.
        batch: a raw batch, for its shapes; its values matter for data-dependent initialisation only.
        initial: where parameters and extra come from instead of the objective.

    Returns:
        The initial state; `ema` equals `params`.
    """
    key = named(root_key(seed), "init")
    init = objective.init if initial is None else functools.partial(initial.load, objective)
    params, extra = init(key, transform(batch, named(key, "data"), False))
    opt_state = {name: optimizers[name].init(params[name]) for name in params}
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), dict(params), opt_state, dict(extra), ema)


def ema_decay(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """EMA warm-up: the decay min(decay, (1 + n) / (10 + n)) after n steps."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def weighted(value: Mapping[str, PyTree], aux: Aux, batch: Batch) -> Mapping[str, Mean]:
    """Means with their weights, to be combined by `scale_means`, a sum, and `divide_means`.

    Args:
        value: name -> what is a mean over what the loss is a mean over; trees of arrays.
        aux: of that loss.
        batch: the objective's batch; its rows are the default weight.

    Returns:
        name -> `Mean`, the metrics of `aux` included.
    """
    weight = len(next(iter(batch.values()))) if aux.weight is None else aux.weight
    means = {**value, **aux.metrics}
    made = {name: mean if isinstance(mean, Mean) else Mean(mean, weight) for name, mean in means.items()}
    as_array = lambda mean: dataclasses.replace(mean, weight=jnp.asarray(mean.weight, jnp.float32))
    return {name: as_array(mean) for name, mean in made.items()}


def scale_means(means: Mapping[str, Mean]) -> Mapping[str, Mean]:
    """(weight * value, weight) of each mean: these sums may be added."""
    times = lambda mean: jax.tree.map(lambda x: mean.weight * x, mean.value)
    return {name: dataclasses.replace(mean, value=times(mean)) for name, mean in means.items()}


def divide_means(sums: Mapping[str, Mean]) -> Mapping[str, Mean]:
    """(sum(weight * value) / sum(weight), sum(weight)); 0 where the weights are 0."""
    over = lambda mean: jax.tree.map(lambda x: x / jnp.where(mean.weight > 0, mean.weight, 1.0), mean.value)
    return {name: dataclasses.replace(mean, value=over(mean)) for name, mean in sums.items()}


def report_means(means: Mapping[str, Mean]) -> dict[str, PyTree]:
    """The values of combined means; what `Mean.report` makes of those that have one, under its names."""
    found: dict[str, PyTree] = {}
    for name, mean in means.items():
        player, slash, _ = name.rpartition("/")
        made = (
            {name.removeprefix(player + slash): mean.value}
            if mean.report is None
            else mean.report(jnp.asarray(mean.value, jnp.float32))
        )
        found |= {f"{player}{slash}{key}": value for key, value in made.items()}
    return found


def _gradient(name: str, player: Player, accumulate: int, reduce: Reduce | None) -> Callable[..., Any]:
    """Means (loss, gradient in the player's own parameters, metrics) and new extra.

    Over micro-batches and replicas they are combined by sum(w value) / sum(w).
    """
    loss_fn = player.loss
    assert loss_fn is not None

    def gradient(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        def loss(own: PyTree) -> tuple[Array, Aux]:
            return loss_fn({**params, name: own}, extra, batch, ctx)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params[name])
        return weighted({LOSS: value, GRADS: grads}, aux, batch), aux.extra

    def combined(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        if accumulate > 1:
            sums, new = accumulated(params, extra, batch, ctx)
        else:
            means, new = gradient(params, extra, batch, ctx)
            if reduce is None:
                return report_means(means), new
            sums = scale_means(means)
        return report_means(divide_means(sums if reduce is None else reduce(sums))), new

    def accumulated(params: Params, extra: Extra, batch: Batch, ctx: Context) -> Any:
        # Strided: each device splits its own rows, and no row changes devices.
        parts = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(carry: Any, now: tuple[Batch, Array]) -> tuple[Any, None]:
            total, extra = carry
            part, index = now
            part_ctx = Context(jax.random.fold_in(ctx.key, index), ctx.step, ctx.train)
            means, new = gradient(params, extra, part, part_ctx)
            return (jax.tree.map(jnp.add, total, scale_means(means)), {**extra, **new}), None

        first = jax.tree.map(lambda x: x[0], parts)
        sums = jax.eval_shape(lambda *args: scale_means(gradient(*args)[0]), params, extra, first, ctx)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sums)
        return jax.lax.scan(add, (zeros, dict(extra)), (parts, jnp.arange(accumulate)))[0]

    return combined


def _by_gradient(
    name: str, player: Player, optimizer: optax.GradientTransformation, axis: str | None, accumulate: int
) -> Callable[..., Any]:
    over_replicas = lambda reduce: (lambda tree: reduce(tree, axis)) if axis else None
    mean = over_replicas(jax.lax.pmean) or (lambda tree: tree)
    gradient = _gradient(name, player, accumulate, over_replicas(jax.lax.psum))

    def apply(params: Params, opt_state: PyTree, extra: Extra, batch: Batch, ctx: Context) -> Any:
        means, new = gradient(params, extra, batch, ctx)
        value, grads, metrics = (
            means[LOSS],
            means[GRADS],
            {k: v for k, v in means.items() if k not in (LOSS, GRADS)},
        )
        updates, opt_state = optimizer.update(grads, opt_state, params[name])
        log = {"loss": value, "grad_norm": optax.tree.norm(grads), **metrics}
        return optax.apply_updates(params[name], updates), opt_state, {**extra, **mean(new)}, log

    return apply


def _closed_form(update: UpdateFn) -> Callable[..., Any]:
    def apply(params: Params, opt_state: PyTree, extra: Extra, batch: Batch, ctx: Context) -> Any:
        own, aux = update(params, extra, batch, ctx)
        log = report_means(weighted({}, aux, batch))
        return own, opt_state, {**extra, **aux.extra}, log

    return apply


def _player_update(
    name: str, player: Player, optimizer: optax.GradientTransformation, axis: str | None, accumulate: int
) -> Callable[..., Any]:
    """One player's update: its closed form, or the gradient in its own parameters and its own optimizer."""
    apply = (
        _closed_form(player.update)
        if player.update
        else _by_gradient(name, player, optimizer, axis, accumulate)
    )
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
        The step. Metrics are scalars named "player/metric", means over micro-batches and replicas by their weights. A
        player with `every` > 1 also reports "player/updated": 1, or 0 in steps that skip it, where its metrics are 0.

    Raises:
        UserError: a player with a closed-form update, and micro-batches or replicas.
    """
    root = root_key(seed)
    for name, player in objective.players().items():
        if player.update and (axis or accumulate > 1):
            raise UserError(
                f"player '{name}' is updated in closed form from the whole batch: set config.accumulate=1 and "
                "config.compile=jit"
            )
    updates = {
        name: _player_update(name, player, optimizers[name], axis, accumulate)
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


def make_eval_step(objective: Objective, transform: Transform) -> Callable[..., Mapping[str, Mean]]:
    """Builds the pure function (params, extra, raw batch, key) -> means, without any update.

    Args:
        objective: defines the players and their losses.
        transform: (raw batch, key, train) -> the objective's batch; called with train=False.

    Returns:
        The step; means are named "player/metric", as in training, and carry their weights.
    """

    def eval_step(params: Params, extra: Extra, batch: Batch, key: Key) -> Mapping[str, Mean]:
        seen = transform(batch, named(key, "data"), False)
        found: dict[str, Mean] = {}
        for name, player in objective.players().items():
            ctx = Context(named(key, name), jnp.zeros((), jnp.int32), train=False)
            if player.loss is not None:
                value, aux = player.loss(params, extra, seen, ctx)
                means = weighted({LOSS: value}, aux, seen)
            else:
                assert player.update is not None
                means = weighted({}, player.update(params, extra, seen, ctx)[1], seen)
            found |= {f"{name}/{metric}": mean for metric, mean in means.items()}
        return found

    return eval_step


def repeat(step: Step) -> Step:
    """Several steps in one compiled call: a scan over batches stacked on a new first axis.

    Args:
        step: (state, batch) -> (state, metrics).

    Returns:
        (state, batches [n, b, ...]) -> (state, metrics [n]).
    """
    return lambda state, batches: jax.lax.scan(step, state, batches)
