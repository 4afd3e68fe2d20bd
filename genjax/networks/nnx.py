"""Adapters from networks of other libraries to `core.objective.Network`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from genjax.core.types import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class FromNNX:
    """A flax.nnx module as a network: parameters are a plain nested dict, calls are pure.

    Only `nnx.Param` variables are trained and carried; all other state (batch norm statistics, random streams) is
    re-created at each call, so modules that rely on such state are not supported.

    Attributes:
        module: class of the module, or a function, called as `module(**kwargs, rngs=nnx.Rngs(...))`.
        kwargs: its arguments, as (name, value) pairs, so that the network is hashable.
        out: name of the constructor's argument for the output width, or None if it has none.
    """

    module: Callable[..., nnx.Module]
    kwargs: tuple[tuple[str, Any], ...] = ()
    out: str | None = None

    def init(self, key: Key | Mapping[str, Key], *inputs: Any, **options: Any) -> PyTree:
        """Initialises the parameters.

        Args:
            key: typed PRNG key, or {"params": key, ...}.
            *inputs: ignored.
            **options: `out`, if the constructor takes it.

        Returns:
            Nested dict of arrays.
        """
        rngs = dict(key) if isinstance(key, Mapping) else {"params": key}
        return _keys_to_strings(nnx.to_pure_dict(nnx.state(self._make(rngs, options), nnx.Param)))

    def apply(
        self, params: PyTree, *inputs: Any, rngs: Mapping[str, Key] | None = None, **options: Any
    ) -> Array:
        """Calls the module with the given parameters.

        Args:
            params: of the structure that `init` returns.
            *inputs: passed to the module, without trailing None (no time, no cond).
            rngs: PRNG keys of the random streams, e.g. {"dropout": key}; a constant key by default.
            **options: passed to the module, except `out` if the constructor takes it.

        Returns:
            The module's output.
        """
        # The initial values are replaced immediately; under jit they are not computed.
        module = self._make(dict(rngs or {}), options)
        state = nnx.state(module, nnx.Param)
        nnx.replace_by_pure_dict(state, nnx.restore_int_paths(params))
        nnx.update(module, state)
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        passed = {name: value for name, value in options.items() if self.out is None or name != "out"}
        return module(*inputs, **passed)

    def _make(self, rngs: Mapping[str, Key], options: Mapping[str, Any]) -> nnx.Module:
        width = {self.out: options["out"]} if self.out is not None else {}
        streams = nnx.Rngs(jax.random.key(0), **rngs)
        return self.module(**dict(self.kwargs), **width, rngs=streams)


def _keys_to_strings(tree: PyTree) -> PyTree:
    """Converts the integer keys of nnx lists to strings, as checkpoints and sharding rules expect."""
    if not isinstance(tree, dict):
        return tree
    return {str(name): _keys_to_strings(value) for name, value in tree.items()}
