"""Low-rank adaptation (LoRA, Hu et al. 2021, arXiv:2106.09685): the base model is frozen, low-rank factors are trained.

Each selected matrix W [i, o] of each player (y = x W) becomes (eq. 3, with x on the left)

    W + (alpha / r) A B,     A [i, r] ~ N(0, 1 / i),     B [r, o] = 0 at initialisation,

so that training starts from the base model. With G the gradient in the sum, the gradient in A is (alpha / r) G B^T and
in B (alpha / r) A^T G. An array with more axes is a stack of matrices over its last two (layers, experts).

This wraps any objective: its players are the inner ones, with the same losses evaluated at merged parameters; each
player's parameters are the factors of its matrices, {path: {"A", "B"}}, and the base parameters are kept in `extra`.
Programs use the inner objective's capabilities with the merged parameters (`training.workdir.merge_adapters`); sampling
and likelihoods are forwarded.
The merged matrices are computed in each step, which needs memory for a second copy of the base.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import (
    Aux,
    Conditioner,
    Context,
    HasLogProb,
    LossFn,
    Objective,
    Player,
    Sampling,
    Weights,
    dequantization_of,
    elements_of,
    levels_of,
    require_samples,
)
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named

Factors = dict[str, dict[str, Array]]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def matrices(params: PyTree) -> dict[str, Array]:
    """Path ("params/blocks/qkv/kernel") -> array for all arrays except vectors and stacks of vectors over layers."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    wide = [
        (path, leaf) for path, leaf in leaves if leaf.ndim > 1 and _name(path[-1:]) not in ("bias", "scale")
    ]
    return {_name(path): leaf for path, leaf in wide}


def merge(params: PyTree, factors: Mapping[str, Mapping[str, Array]], scale: float) -> PyTree:
    """W + scale A B for the matrices that have factors.

    Args:
        params: of one player.
        factors: path -> "A" [*stack, i, r] and "B" [*stack, r, o].
        scale: alpha / r.

    Returns:
        The parameters, those without factors unchanged.
    """

    def add(path: tuple, leaf: Array) -> Array:
        own = factors.get(_name(path))
        if own is None:
            return leaf
        return leaf + scale * jnp.einsum("...ir,...ro->...io", own["A"], own["B"])

    return jax.tree_util.tree_map_with_path(add, params)


@dataclass(frozen=True)
class LoRA:
    """Fine-tunes a trained objective by low-rank updates of some of its matrices.

    Attributes:
        inner: the trained objective.
        base: the checkpoint with its parameters, read when the run starts; then stored in the run's own checkpoints.
        path: regular expression; matrices whose path, like "params/blocks/qkv/kernel", contains a match get factors.
        rank: r.
        alpha: of the scale alpha / r.
    """

    inner: Objective
    base: Weights
    path: str = r"kernel$"
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"rank={self.rank} must be at least 1")

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The factors of all players; `extra` holds "base" and, as "inner", the inner objective's extra.

        Raises:
            UserError: no matrix path matches `path`; or as `Weights.load`.
        """
        params, extra = self.base.load(self.inner, key, batch)
        factors = {player: self._factors(named(key, player), own) for player, own in params.items()}
        if not any(factors.values()):
            known = ", ".join(path for own in params.values() for path in matrices(own))
            raise UserError(f"no matrix path matches '{self.path}': the paths are {known}")
        return factors, {"base": dict(params), "inner": dict(extra)}

    def _factors(self, key: Key, params: PyTree) -> Factors:
        factors: Factors = {}
        for path, leaf in matrices(params).items():
            if re.search(self.path, path):
                *stack, i, o = leaf.shape
                a = jax.random.normal(named(key, path), (*stack, i, self.rank)) / i**0.5
                factors[path] = {"A": a, "B": jnp.zeros((*stack, self.rank, o))}
        return factors

    def merged(self, params: Params, extra: Extra) -> tuple[Params, Extra]:
        """Parameters and extra of the inner objective; see `core.objective.Adapter`."""
        own = {
            player: merge(extra["base"][player], factors, self.scale) for player, factors in params.items()
        }
        return own, extra["inner"]

    def players(self) -> Mapping[str, Player]:
        """The inner objective's players, trained through the factors."""
        inner = self.inner.players()
        for name, player in inner.items():
            if player.loss is None:
                raise UserError(f"LoRA adapts players that are trained by gradients, '{name}' is not")
        return {
            name: Player(self._adapted(player.loss), player.every)
            for name, player in inner.items()
            if player.loss
        }

    def _adapted(self, inner: LossFn) -> LossFn:
        def loss(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
            value, aux = inner(*self.merged(params, extra), batch, ctx)
            changed = {"inner": {**extra["inner"], **aux.extra}} if aux.extra else {}
            return value, dataclasses.replace(aux, extra=changed)

        return loss

    @property
    def sampling(self) -> Sampling:
        """The inner objective's."""
        return require_samples(self.inner).sampling

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> PyTree:
        """Samples of the inner objective with merged parameters.

        Args:
            params: factors by player.
            extra: "base" and "inner".
            key: typed PRNG key.
            num: number of samples.
            cond: as the inner objective takes it.

        Returns:
            As the inner objective.
        """
        return require_samples(self.inner).sample(*self.merged(params, extra), key, num, cond)

    @property
    def condition(self) -> Conditioner | None:
        """The inner objective's."""
        return self.inner.condition

    @property
    def levels(self) -> int:
        """The inner objective's."""
        return levels_of(self.inner)

    @property
    def dequantization(self) -> str:
        """The inner objective's."""
        return dequantization_of(self.inner)

    def elements(self, batch: Batch) -> Float[Array, " b"]:
        """The inner objective's."""
        return elements_of(self.inner, batch)

    @property
    def log_prob_kind(self) -> str:
        """The inner objective's; empty if it has no likelihood."""
        return self.inner.log_prob_kind if isinstance(self.inner, HasLogProb) else ""

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Log-probability under the inner objective with merged parameters.

        Args:
            params: factors by player.
            extra: "base" and "inner".
            batch: as the inner objective takes it.
            key: typed PRNG key.

        Returns:
            Nats [b].

        Raises:
            UserError: the inner objective has no likelihood.
        """
        if not isinstance(self.inner, HasLogProb):
            raise UserError(f"{type(self.inner).__name__} has no likelihood, nor has LoRA around it")
        return self.inner.log_prob(*self.merged(params, extra), batch, key)
