"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions over a sequence.

    z = tanh(F * h + U c) sigmoid(G * h + V c)  (eq. 3),   h <- h + A z,   s <- s + B z,   logits = D relu(C relu(s)),

where * is a convolution of `kernel` taps, the dilation doubling from layer to layer in each cycle. The receptive field
is 1 + cycles (kernel - 1) (2^layers - 1). For incremental evaluation (Paine et al. 2016, arXiv:1611.09482) each layer
keeps its last dilation (kernel - 1) inputs in a ring buffer; the cost of a step does not depend on the receptive field.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.types import Array, PyTree, record
from genjax.networks.autoregressive.causal import CausalNetwork, flatten
from genjax.networks.layers import ops
from genjax.networks.layers.incremental import IncrementalDecoder, stepwise
from genjax.networks.layers.linen import Dense, lecun, zeros


@record
class Rings:
    """Memory: the last inputs of each layer, and the number of places processed."""

    rings: tuple[Float[Array, "b _ c"], ...]
    place: Int[Array, " b"]


class CausalConv(nn.Module):
    """Causal convolution: outputs depend on inputs at that place and earlier ones; zero padding before the first.

    Attributes:
        features: output channels.
        kernel: number of taps.
        dilation: distance between taps.
    """

    features: int
    kernel: int
    dilation: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        ring: Float[Array, "b s c"] | None = None,
        place: Int[Array, " b"] | None = None,
        active: Bool[Array, " b"] | None = None,
    ) -> Any:
        """All places at once; or, with `ring`, one place (n = 1) after those in the ring.

        Args:
            x: inputs.
            ring: the last s = dilation (kernel - 1) inputs; that of place p is at p mod s.
            place: current place of each row.
            active: rows that store x.

        Returns:
            Outputs [b, n, features]; with `ring`: (outputs, new ring).
        """
        shape = (self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", lecun, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)[None, None]
        back = self.dilation * (self.kernel - 1)
        if ring is None or place is None or active is None:
            return ops.conv(x, kernel, padding=((back, 0),), dilation=self.dilation) + bias
        rows = jnp.arange(len(x))
        y = x[:, 0] @ kernel[-1]
        for tap in range(self.kernel - 1):
            slot = (place - self.dilation * (self.kernel - 1 - tap)) % back
            y = y + ring[rows, slot] @ kernel[tap]
        if back:
            ring = ring.at[rows, jnp.where(active, place % back, back)].set(x[:, 0], mode="drop")
        return y[:, None] + bias, ring


class WaveNet(CausalNetwork):
    """WaveNet from tokens to logits.

    Attributes:
        width: channels of the residual stream.
        gate: channels of z.
        skip: channels of s.
        kernel: taps of each convolution.
        layers: number of layers per cycle, with dilations 1, 2, ..., 2^(layers - 1).
        cycles: number of cycles.
        extra: number of input tokens that are never predicted, numbered from `out` on: the start symbol.
    """

    width: int = 64
    gate: int = 64
    skip: int = 128
    kernel: int = 2
    layers: int = 9
    cycles: int = 2
    extra: int = 1

    @property
    def dilations(self) -> tuple[int, ...]:
        """Dilations of all convolutions, in order."""
        return tuple(2**layer for layer in range(self.layers)) * self.cycles

    @property
    def receptive_field(self) -> int:
        """Number of inputs on which an output depends."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def whole(self, x: Array, cond: Array | None, out: int | tuple[int, ...], train: bool) -> Array:
        """Float32 logits [b, *n, out] after tokens [b, *n] in 0 ... out + extra - 1; cond is the paper's global one."""
        flat, number = flatten(x, out)
        return self.evaluate(flat, cond, number)[0].reshape(*x.shape, number)

    @nn.compact
    def evaluate(
        self,
        x: Int[Array, "b n"],
        cond: Float[Array, "b c"] | None,
        number: int,
        memory: Rings | None = None,
        active: Bool[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n o"], Rings | None]:
        """Logits at all places, or with `memory` at the next place.

        Args:
            x: tokens; n = 1 with `memory`.
            cond: conditioning vector, or None.
            number: number of tokens to choose from.
            memory: memory before the place, or None.
            active: rows that store x; required with `memory`.

        Returns:
            (logits, the new memory or None).
        """
        init = nn.initializers.normal(1.0)
        h = self.param("tokens", init, (number + self.extra, self.width), jnp.float32)[x]
        total, rings = jnp.zeros((*h.shape[:2], self.skip)), []
        for index, dilation in enumerate(self.dilations):
            conv = CausalConv(2 * self.gate, self.kernel, dilation, name=f"conv_{index}")
            if memory is None:
                z = conv(h)
            else:
                z, ring = conv(h, memory.rings[index], memory.place, active)
                rings.append(ring)
            if cond is not None:
                z = z + Dense(2 * self.gate, use_bias=False, name=f"cond_{index}")(cond)[:, None]
            signal, gate = jnp.split(z, 2, axis=-1)
            z = jnp.tanh(signal) * jax.nn.sigmoid(gate)
            if index + 1 < len(self.dilations):
                h = h + Dense(self.width, name=f"residual_{index}")(z)
            total = total + Dense(self.skip, name=f"skip_{index}")(z)
        y = Dense(self.skip, name="out_1")(jax.nn.relu(total / len(self.dilations) ** 0.5))
        after = None if memory is None or active is None else Rings(tuple(rings), memory.place + active)
        return Dense(number, name="out_2")(jax.nn.relu(y)), after

    @nn.nowrap
    def decoder(
        self, params: PyTree, grid: tuple[int, ...], cond: Array | None, out: tuple[int, ...], channels: int
    ) -> IncrementalDecoder:
        """Inputs [b, k, 1], outputs [b, k, 1, number]; the grid is ignored."""
        number = out[-1]

        def init(num: int) -> Rings:
            sizes = [dilation * (self.kernel - 1) for dilation in self.dilations]
            rings = tuple(jnp.zeros((num, size, self.width)) for size in sizes)
            return Rings(rings, jnp.zeros(num, jnp.int32))

        def step(memory: Rings, x: Array, active: Array) -> tuple[Array, PyTree]:
            both: Any = self.apply(params, x, cond, number, memory, active, method="evaluate")
            return both[0], both[1]

        return stepwise(step, init)
