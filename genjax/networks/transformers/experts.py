"""Perceptrons of a transformer's blocks: one for all places, or a mixture of experts with a few active per place.

A router computes logits l = W_r x in float32 for each place x, p = softmax(l). Its k = `active` largest experts give

    y = sum_chosen g_e E_e(x),   g = p_e of the one           if k = 1 (Switch, Fedus et al. 2021, arXiv:2101.03961),
                                 g = softmax of the chosen l  if k > 1 (Mixtral, Jiang et al. 2024, arXiv:2401.04088).

In training an expert processes at most C = ceil(capacity k n / E) places of a sequence of n (Fedus et al., eq. 3),
the earliest routed to it; for later ones its term is dropped, and a place without any expert keeps only the residual.
The order keeps logits causal: whether a place is dropped depends on earlier places only. Sequences do not compete with
each other. Outside of training C = n: nothing is dropped, so p(x) is the same with and without incremental decoding;
this computes every expert at every place, E / k times the necessary work.

Places are dispatched by rank (a cumulative count): scattered into the experts' slots [b, E, C, c], and gathered back.

Two penalties per layer are added to the loss, with means over all places of the batch:

    balance E sum_e f_e P_e,         f_e = share of choices of e,   P_e = mean p_e      (eqs. 4-6),
    router_z mean (log sum_e exp l_e)^2                                (Zoph et al. 2022, arXiv:2202.08906, eq. 5).

E sum_e f_e P_e is 1 for a uniform router, and E if one expert (k = 1) is always chosen. `penalised` returns the sum.
The balance is nonlinear in the batch: micro-batches and replicas average their own, and accumulation is not exact.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.sharding_rules import BATCH, constrain, even_splits, num_splits
from genjax.core.types import Array, PyTree
from genjax.networks.layers import ops
from genjax.networks.layers.linen import Dense

Form = Literal["gelu", "swiglu"]
ROUTING = "routing"  # a router's statistics, in flax's collection of intermediate values


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Hyperparameters of a mixture of experts.

    Attributes:
        experts: E, number of experts per layer.
        active: k, number of experts per place.
        capacity: maximum number of places per expert in training, relative to an even share; 0 for no limit.
        balance: weight of the load-balancing loss.
        router_z: weight of the router's z-loss.
    """

    experts: int = 8
    active: int = 2
    capacity: float = 1.25
    balance: float = 0.01
    router_z: float = 0.001

    def __post_init__(self) -> None:
        if not 1 <= self.active <= self.experts:
            raise UserError(f"active={self.active} must be at least 1 and at most experts={self.experts}")
        if self.capacity < 0:
            raise UserError(f"capacity={self.capacity} must be positive, or 0 for no limit")

    def slots(self, n: int) -> int:
        """C for a sequence of n places in training."""
        return min(n, math.ceil(self.capacity * self.active * n / self.experts)) if self.capacity else n


def matrix_init(init_std: float, factor: float = 1.0) -> nn.initializers.Initializer:
    """Initialiser of a matrix: normal of `init_std`, variance-preserving if that is 0; `factor` scales the variance."""
    if init_std:
        return nn.initializers.normal(init_std * factor**0.5)
    return nn.initializers.variance_scaling(factor, "fan_in", "truncated_normal")


def largest(x: Float[Array, "b n e"], k: int) -> Int[Array, "b n k"]:
    """Indices of the k largest entries; `jax.lax.top_k` would gather a batch that is split over devices, on CPUs."""
    chosen = []
    for _ in range(k):
        chosen.append(jnp.argmax(x, axis=-1))
        x = jnp.where(jax.nn.one_hot(chosen[-1], x.shape[-1], dtype=bool), -jnp.inf, x)
    return jnp.stack(chosen, axis=-1)


class Perceptron(nn.Module):
    """Two matrices with a GELU between them, or three ("swiglu", Shazeer 2020): W (silu(U x) * V x).

    Attributes: as of `attention.Block`.
    """

    hidden: int = 512
    mlp: Form = "gelu"
    bias: bool = True
    residual: float = 1.0
    init_std: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Applies it at each place."""
        dense = lambda features, name, factor, **options: Dense(
            features, self.bias, self.dtype, matrix_init(self.init_std, factor), name=name, **options
        )
        if self.mlp == "swiglu":
            ways = even_splits("tensor", self.hidden)
            both = dense(2 * self.hidden, "mlp_in", 1.0, shares=ways, parts=(self.hidden,) * 2)(x)
            gate, h = jnp.split(both.reshape(*x.shape[:-1], ways, -1), 2, axis=-1)
            h = (jax.nn.silu(gate) * h).reshape(*x.shape[:-1], self.hidden)
        else:
            h = ops.gelu(dense(self.hidden, "mlp_in", 1.0)(x))
        h = constrain(h, BATCH, "sequence", "tensor")
        return dense(x.shape[-1], "mlp_out", self.residual, rows=True)(h)


class Experts(Perceptron):
    """A mixture of perceptrons, whose parameters have a leading axis of experts, and a router.

    Attributes:
        mixture: hyperparameters.
    """

    mixture: Mixture = Mixture()

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], train: bool = False) -> Float[Array, "b n c"]:
        """Applies to each place its chosen experts.

        Args:
            x: features of each place.
            train: whether capacity is limited.

        Returns:
            The new features, in the experts' dtype.
        """
        mixture, (_, n, c) = self.mixture, x.shape
        router = Dense(mixture.experts, False, kernel_init=matrix_init(self.init_std), name="router")
        logits = router(x.astype(jnp.float32))
        p = jax.nn.softmax(logits)
        chosen = largest(logits, mixture.active)
        of_chosen = functools.partial(jnp.take_along_axis, indices=chosen, axis=2)
        gates = jax.nn.softmax(of_chosen(logits)) if mixture.active > 1 else of_chosen(p)
        wanted = jnp.sum(jax.nn.one_hot(chosen, mixture.experts, dtype=jnp.int32), axis=2)
        slots = mixture.slots(n) if train else n
        rank = of_chosen(jnp.cumsum(wanted, axis=1) - wanted)
        self._note(logits, p, wanted, rank, slots)
        nothing = jnp.zeros((mixture.experts, slots, c), x.dtype)
        # Mapped over sequences, so that a batch that is split over devices is not gathered.
        send = jax.vmap(lambda x, *where: nothing.at[where].set(x[:, None], mode="drop"))
        fetch = jax.vmap(lambda done, *where: done.at[where].get(mode="fill", fill_value=0.0))
        held = send(x, chosen, rank)
        each = nn.vmap(
            Perceptron,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=1,
            out_axes=1,
            spmd_axis_name="expert" if num_splits("expert") > 1 else None,
        )
        form = (self.hidden, self.mlp, self.bias, self.residual, self.init_std, self.dtype)
        done = each(*form, name="each")(held)
        terms = fetch(done, chosen, rank)
        return jnp.einsum("bnkc,bnk->bnc", ops.wide(terms), gates).astype(terms.dtype)

    def _note(
        self,
        logits: Float[Array, "b n e"],
        p: Float[Array, "b n e"],
        wanted: Int[Array, "b n e"],
        rank: Int[Array, "b n k"],
        slots: int,
    ) -> None:
        """Sows penalty and metrics of this layer for `penalised`; see the module's docstring."""
        number, mixture = self.mixture.experts, self.mixture
        share = jnp.mean(wanted.astype(jnp.float32), axis=(0, 1)) / mixture.active
        balance = number * jnp.sum(share * jnp.mean(p, axis=(0, 1)))
        z = jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2)
        collected = {
            "penalty": mixture.balance * balance + mixture.router_z * z,
            "balance": balance,
            "router_z": z,
            "dropped": jnp.mean((rank >= slots).astype(jnp.float32)),
            "load": number * jnp.max(share),
        }
        self.sow("intermediates", ROUTING, collected)


def penalised(
    net: nn.Module, params: PyTree, *inputs: Any, **options: Any
) -> tuple[Any, Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Runs a network, and collects penalties and metrics of its mixtures of experts.

    Args:
        net: any network of blocks.
        params: its parameters.
        *inputs: passed to `net.apply`.
        **options: passed to `net.apply`.

    Returns:
        (output, sum of the layers' penalties, metrics). Metrics: "balance" E sum f P, "router_z" without its weight,
        "dropped" share of dropped choices, as means over the layers; "load", the largest expert's share relative to
        an even one, as the maximum over the layers. Without a mixture the penalty is 0 and there are no metrics.
    """
    out, kept = net.apply(params, *inputs, mutable="intermediates", **options)
    collected: dict[str, list[Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        if ROUTING in names:
            collected.setdefault(names[-1], []).append(leaf.reshape(-1))
    layers = {name: jnp.concatenate(values) for name, values in collected.items()}
    penalty = jnp.sum(layers.pop("penalty", jnp.zeros(0)))
    reductions = {"load": jnp.max}
    return out, penalty, {name: reductions.get(name, jnp.mean)(values) for name, values in layers.items()}
