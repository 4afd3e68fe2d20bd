"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions over a sequence.

    z = tanh(F * h + U c) sigmoid(G * h + V c)  (eq. 3),   h <- h + A z,   s <- s + B z,   logits = D relu(C relu(s)),

where * is a convolution of `kernel` taps, the dilation doubling from layer to layer in each of some cycles. A place
sees 1 + cycles (kernel - 1) (2^layers - 1) inputs back. Walked place by place (Paine et al. 2016, arXiv:1611.09482)
each layer keeps the dilation (kernel - 1) last inputs in a ring; a step costs the same whatever the receptive field.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array, PyTree, record
from genjax.networks.layers import ops
from genjax.networks.layers.incremental import Walker, stepwise
from genjax.networks.layers.linen import Dense, lecun, zeros


@record
class Rings:
    """The last inputs of each layer, and the number of places walked."""

    rings: tuple[Float[Array, "b _ c"], ...]
    place: Int[Array, " b"]


class CausalConv(nn.Module):
    """Convolution whose output at a place is of inputs at that place and earlier ones; zeros come before the first.

    Attributes:
        features: output channels.
        kernel: taps.
        dilation: distance between them.
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
        move: Bool[Array, " b"] | None = None,
    ) -> Any:
        """All places at once; or one place (n = 1), after those whose inputs are in the ring.

        Args:
            x: inputs.
            ring: the last s = dilation (kernel - 1) of them; that of place p is at p mod s.
            place: of each row.
            move: rows that remember x.

        Returns:
            Outputs [b, n, features]; of one place (outputs, ring).
        """
        shape = (self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", lecun, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)[None, None]
        back = self.dilation * (self.kernel - 1)
        if ring is None or place is None or move is None:
            return ops.conv(x, kernel, padding=((back, 0),), dilation=self.dilation) + bias
        rows = jnp.arange(len(x))
        y = x[:, 0] @ kernel[-1]
        for tap in range(self.kernel - 1):
            slot = (place - self.dilation * (self.kernel - 1 - tap)) % back
            y = y + ring[rows, slot] @ kernel[tap]
        if back:
            ring = ring.at[rows, jnp.where(move, place % back, back)].set(x[:, 0], mode="drop")
        return y[:, None] + bias, ring


class WaveNet(nn.Module):
    """WaveNet from tokens to logits.

    Attributes:
        width: channels of the residual stream.
        gate: channels of z.
        skip: channels of s.
        kernel: taps of each convolution.
        layers: in each cycle, with dilations 1, 2, ..., 2^(layers - 1).
        cycles: how often they are repeated.
        extra: tokens that are read but never predicted, numbered from `out` on: a start.
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
        """Of all convolutions, in order."""
        return tuple(2**layer for layer in range(self.layers)) * self.cycles

    @property
    def receptive_field(self) -> int:
        """Inputs that an output depends on."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def __call__(
        self,
        x: Int[Array, "b *n"],
        t: None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b *n o"]:
        """Maps tokens [b, *n] in 0 ... out + extra - 1 to float32 logits [b, *n, out].

        Args:
            x: tokens on a grid of any number of axes, in the order of its flattening.
            t: None; there is no time.
            cond: conditioning vector (the paper's global one), or None.
            out: number of tokens to choose from, or the shape (*n, number).
            train: nothing depends on it.

        Returns:
            Logits.

        Raises:
            UserError: `out` has another shape than x.
        """
        shape, number = x.shape[1:], out if isinstance(out, int) else out[-1]
        if isinstance(out, tuple) and out[:-1] != shape:
            raise UserError(
                f"this network keeps the shape {shape}, so out={out} should be {(*shape, out[-1])}"
            )
        flat = x.reshape(len(x), math.prod(shape))
        return self.hear(flat, cond, number)[0].reshape(*x.shape, number)

    @nn.compact
    def hear(
        self,
        x: Int[Array, "b n"],
        cond: Float[Array, "b c"] | None,
        number: int,
        memory: Rings | None = None,
        move: Bool[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n o"], Rings | None]:
        """Logits at all places, or at one place and what is remembered then."""
        init = nn.initializers.normal(1.0)
        h = self.param("tokens", init, (number + self.extra, self.width), jnp.float32)[x]
        total, rings = jnp.zeros((*h.shape[:2], self.skip)), []
        for index, dilation in enumerate(self.dilations):
            conv = CausalConv(2 * self.gate, self.kernel, dilation, name=f"conv_{index}")
            if memory is None:
                z = conv(h)
            else:
                z, ring = conv(h, memory.rings[index], memory.place, move)
                rings.append(ring)
            if cond is not None:
                z = z + Dense(2 * self.gate, use_bias=False, name=f"cond_{index}")(cond)[:, None]
            signal, gate = jnp.split(z, 2, axis=-1)
            z = jnp.tanh(signal) * jax.nn.sigmoid(gate)
            if index + 1 < len(self.dilations):
                h = h + Dense(self.width, name=f"residual_{index}")(z)
            total = total + Dense(self.skip, name=f"skip_{index}")(z)
        y = Dense(self.skip, name="out_1")(jax.nn.relu(total / len(self.dilations) ** 0.5))
        after = None if memory is None or move is None else Rings(tuple(rings), memory.place + move)
        return Dense(number, name="out_2")(jax.nn.relu(y)), after

    @nn.nowrap
    def walker(
        self,
        params: PyTree,
        grid: tuple[int, ...],
        cond: Float[Array, "b c"] | None = None,
        *,
        out: int | tuple[int, ...],
        **options: Any,
    ) -> Walker:
        """The network place by place; see `walker.Walker`. It cannot forget; options change nothing."""
        number = out if isinstance(out, int) else out[-1]

        def begin(num: int) -> Rings:
            sizes = [dilation * (self.kernel - 1) for dilation in self.dilations]
            rings = tuple(jnp.zeros((num, size, self.width)) for size in sizes)
            return Rings(rings, jnp.zeros(num, jnp.int32))

        def step(memory: Rings, x: Array, move: Array) -> tuple[Array, PyTree]:
            both: Any = self.apply(params, x, cond, number, memory, move, method="hear")
            return both[0], both[1]

        return stepwise(step, begin)
