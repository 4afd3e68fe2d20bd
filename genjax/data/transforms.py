"""Transforms between the data's own units and the model's: pure functions of (batch, key).

If the model sees z = f(x), the change of variables gives the data's log-density in nats,

    log p_data(x) = log p_model(f(x)) + log |det df/dx|,

and with uniform dequantization z = x + u, u ~ U[0, 1)^d, E_u log p(x + u) bounds the log-probability of the
integer x from below (Theis et al., "A note on the evaluation of generative models", 2016, section 3.1).
"""

import dataclasses
from typing import Literal, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.types import Array, Batch, Key, named

A = TypeVar("A", np.ndarray, Array)


@runtime_checkable
class Transform(Protocol):
    """An elementwise or geometric map of a batch that keeps the shape of "x". Implemented by frozen dataclasses."""

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Maps "x" from the data's units towards the model's.

        Args:
            batch: with "x" [b, *shape].
            key: typed PRNG key.
            train: whether to augment; static under jit.

        Returns:
            The batch with "x" mapped.
        """
        ...

    def inverse(self, x: A) -> A:
        """Maps x [b, *shape] back, in the array library and dtype of x."""
        ...

    def log_det(self, shape: tuple[int, ...]) -> float:
        """log |det df/dx| of one example of this shape, in nats."""
        ...


@runtime_checkable
class HasDomain(Protocol):
    """A transform made for values of one range."""

    @property
    def domain(self) -> tuple[float, float]:
        """The lowest and the highest value, before the transform."""
        ...


@dataclasses.dataclass(frozen=True)
class Dequantize:
    """Adds U[0, 1) noise to integers: x + u as float32; the inverse rounds down.

    u lies on the midpoints of 2^bits equal cells, so that neither the sum nor a later `Scale` in float32
    reaches the next integer, and the inverse is exact: it needs log2(levels) + bits <= 22.

    Attributes:
        bits: random bits per value; 14 are exact up to 256 levels, 6 up to 65,536.
    """

    bits: int = 14

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Integers -> float32; draws noise in evaluation too. See `Transform.forward`."""
        x = batch["x"]
        cell = jax.random.bits(named(key, "dequantize"), x.shape, jnp.uint16) >> (16 - self.bits)
        u = (cell.astype(jnp.float32) + 0.5) / 2**self.bits
        return {**batch, "x": x.astype(jnp.float32) + u}

    def inverse(self, x: A) -> A:
        """Rounds down."""
        return x // 1

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: a shift preserves volume."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps [low, high] affinely onto [to_low, to_high].

    Integers 0 ... L - 1 cover [0, L] after `Dequantize`, and [0, L - 1] without it.

    Attributes:
        low: value that is mapped to `to_low`.
        high: value that is mapped to `to_high`.
        to_low: lower end of the target range.
        to_high: upper end of the target range.
    """

    low: float
    high: float
    to_low: float = -1.0
    to_high: float = 1.0

    @property
    def domain(self) -> tuple[float, float]:
        """The ends of the range, in order."""
        return min(self.low, self.high), max(self.low, self.high)

    @property
    def slope(self) -> float:
        """df/dx."""
        return (self.to_high - self.to_low) / (self.high - self.low)

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Any dtype -> float32. See `Transform.forward`."""
        slope = np.float32(self.slope)
        if abs(float(slope)) > abs(self.slope):  # round towards zero: x = high must not exceed to_high
            slope = np.nextafter(slope, np.float32(0))
        x = batch["x"].astype(jnp.float32)
        return {**batch, "x": (x - self.low) * slope + self.to_low}

    def inverse(self, x: A) -> A:
        """Maps [to_low, to_high] onto [low, high]."""
        return (x - self.to_low) / self.slope + self.low

    def log_det(self, shape: tuple[int, ...]) -> float:
        """d log |slope|."""
        return float(np.prod(shape) * np.log(np.abs(self.slope)))


@dataclasses.dataclass(frozen=True)
class Binarize:
    """Samples each value as Bernoulli(x / high), anew in each call (float32).

    Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks" (2008). The model's
    log-probability is that of the binary image, without a change of variables.

    Attributes:
        high: the value that always becomes 1: levels - 1.
        random: False thresholds at high / 2 instead.
    """

    high: float
    random: bool = True

    @property
    def domain(self) -> tuple[float, float]:
        """0 ... high."""
        return 0.0, self.high

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Any dtype in [0, high] -> float32 in {0, 1}; random in evaluation too. See `Transform.forward`."""
        p = batch["x"].astype(jnp.float32) / self.high
        u = jax.random.uniform(named(key, "binarize"), p.shape) if self.random else 0.5
        return {**batch, "x": (u < p).astype(jnp.float32)}

    def inverse(self, x: A) -> A:
        """{0, 1} -> {0, high}."""
        return x * self.high

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: the likelihood is that of the binary values."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Quantize:
    """Rounds integers 0 ... high to the nearest of `values` even steps, numbered 0 ... values - 1 (int32).

    The model's log-probability is that of the coarse image, without a change of variables.

    Attributes:
        values: number of steps; the first is 0 and the last is `high`.
        high: levels - 1.
    """

    values: int
    high: int = 255

    @property
    def domain(self) -> tuple[float, float]:
        """0 ... high."""
        return 0.0, float(self.high)

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Integers -> int32; halves are rounded up. See `Transform.forward`."""
        x = batch["x"].astype(jnp.int32)
        return {**batch, "x": (2 * (self.values - 1) * x + self.high) // (2 * self.high)}

    def inverse(self, x: A) -> A:
        """Step numbers -> values in [0, high]."""
        return x * (self.high / (self.values - 1))

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: the likelihood is that of the step numbers."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors each image left to right with probability 1/2, in training only."""

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Images [b, h, w, c] of any dtype. See `Transform.forward`."""
        if not train:
            return batch
        x = batch["x"]
        mirrored = jax.random.bernoulli(named(key, "flip"), 0.5, (x.shape[0], 1, 1, 1))
        return {**batch, "x": jnp.where(mirrored, x[:, :, ::-1], x)}

    def inverse(self, x: A) -> A:
        """The identity: an augmentation is not undone."""
        return x

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: a permutation preserves volume."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Crop:
    """Pads each image on all sides and crops it to its size at a random offset, in training only.

    Attributes:
        pad: pixels on each side; shifts are uniform in -pad ... pad, independently in rows and columns.
        mode: what the padding holds: zeros ("constant"), the border ("edge") or the mirror image ("reflect").
    """

    pad: int
    mode: Literal["constant", "edge", "reflect"] = "constant"

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Images [b, h, w, c] of any dtype. See `Transform.forward`."""
        if not train:
            return batch
        x = batch["x"]
        b, h, w, c = x.shape
        padded = jnp.pad(x, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)), mode=self.mode)
        corners = jax.random.randint(named(key, "crop"), (b, 2), 0, 2 * self.pad + 1)
        crop = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))
        return {**batch, "x": jax.vmap(crop)(padded, corners)}

    def inverse(self, x: A) -> A:
        """The identity: an augmentation is not undone."""
        return x

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: likelihoods are computed in evaluation, without crops."""
        return 0.0
