"""The check of a train state before it is saved: a checkpoint with NaN or infinity would be restored for ever."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from genjax.core.errors import UserError
from genjax.core.types import Array, PyTree
from genjax.training.step import TrainState

PARTS = ("params", "ema", "opt_state", "extra")  # in the order in which they are named


@jax.jit
def _finite(leaves: list[Array]) -> list[Bool[Array, ""]]:
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]


def _named_floats(state: TrainState) -> Iterator[tuple[str, Array]]:
    """(name, array) of the floating-point leaves, such as "params of player 'net': params/first/bias"."""
    trees: dict[str, PyTree] = {name: vars(state)[name] for name in PARTS}
    for part, tree in trees.items():
        for own, below in tree.items():
            owner = f"{part} '{own}'" if part == "extra" else f"{part} of player '{own}'"
            for path, leaf in jax.tree_util.tree_leaves_with_path(below):
                if jnp.issubdtype(leaf.dtype, jnp.floating):
                    yield f"{owner}: {jax.tree_util.keystr(path, simple=True, separator='/')}", leaf


def check_state(state: TrainState, last: int | None) -> None:
    """Checks that a state may be saved.

    Args:
        state: of any sharding.
        last: step of the last checkpoint, for the message; None if there is none.

    Raises:
        UserError: an array has a NaN or infinity; names the first one.
    """
    names, leaves = zip(*_named_floats(state), strict=True)
    good = jax.device_get(_finite(list(leaves)))
    for name, fine in zip(names, good, strict=True):
        if not fine:
            kept = f"checkpoint {last} is kept" if last is not None else "there is no checkpoint"
            raise UserError(
                f"step {int(state.step)} is not saved: {name} has values that are NaN or infinite; {kept}. A smaller "
                "learning rate, clipping (config.optimizer.clip=1) or float32 may help"
            )
