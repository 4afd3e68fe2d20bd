"""Points in the plane with exactly known density.

Four of the five are finite or continuous Gaussian mixtures, p(x) = sum_k w_k N(x; c_k, s^2 I):

- `GaussianMixture`: a finite sum.
- `Rings`: x = R (cos a, sin a) + s eps with uniform a. The integral over a is a Bessel function (the Rice
  distribution of r = |x|): p(x) = exp(-(r - R)^2 / 2 s^2) I0e(r R / s^2) / (2 pi s^2).
- `Moons`, `Spirals`: x = c(t) + s eps, integrated over t by composite Gauss-Legendre quadrature (16 nodes per
  six standard deviations of arc length; relative error below 1e-9).
- `Checkerboard`: uniform on the dark squares.

Entropies are h = -integral p log p in nats: closed form for the checkerboard, one-dimensional quadrature
over r for rings, and the trapezoid rule on a grid of spacing s / 2 for the others (absolute error < 1e-6).
"""

import abc
import dataclasses
import zlib
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import i0e, logsumexp

from genjax.core.errors import UserError
from genjax.data.examples import Table
from genjax.data.source import Kind, check_split
from genjax.data.sources.quadrature import Points, Values, grid_entropy, mixture_log_density, quadrature


@dataclasses.dataclass(frozen=True)
class Toy(abc.ABC):
    """Base class of the toys: `num` training and `num_test` test points, float32 [2].

    Attributes:
        num: training points.
        num_test: test points.
        seed: of the points of all splits.
    """

    num: int = 50_000
    num_test: int = 10_000
    seed: int = 0

    kind: ClassVar[Kind] = "points"
    shape: ClassVar[tuple[int, ...]] = (2,)
    dtype: ClassVar[str] = "float32"
    levels: ClassVar[int] = 0
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    @abc.abstractmethod
    def classes(self) -> int:
        """Number of components (modes, rings, arms, squares); "label" is the component of a point."""

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, label: np.ndarray) -> Points:
        """Draws one point, float64, from each component in `label` [b]."""

    @abc.abstractmethod
    def log_density(self, x: Points) -> Values:
        """log p(x) in nats, in float64."""

    @abc.abstractmethod
    def entropy(self) -> float:
        """-E[log p(x)] in nats: the least expected negative log-likelihood of any model."""

    def load(self, split: str) -> Table:
        """Draws one split; see `Source.load`."""
        check_split(split, self.splits)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, zlib.crc32(split.encode())]))
        label = rng.integers(self.classes, size=self.num if split == "train" else self.num_test)
        return Table({"x": self.draw(rng, label).astype(np.float32), "label": label.astype(np.int32)})


@dataclasses.dataclass(frozen=True)
class GaussianMixture(Toy):
    """Gaussian modes of equal weight, on a ring (8 by default) or on a square grid (usually 25).

    Both layouts are standard tests of mode coverage of GANs (Srivastava et al., "VEEGAN", 2017).

    Attributes:
        count: number of modes; a square number on the grid.
        layout: "ring" or "grid".
        radius: of the ring, or half the side of the grid, whose centres span [-radius, radius]^2.
        noise: standard deviation of a mode.
    """

    count: int = 8
    layout: Literal["ring", "grid"] = "ring"
    radius: float = 2.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.layout == "grid" and round(self.count**0.5) ** 2 != self.count:
            raise UserError(f"count={self.count} modes on a grid must be a square number, such as 25")

    @property
    def classes(self) -> int:
        """Number of modes."""
        return self.count

    def modes(self) -> tuple[Float[np.ndarray, "k 2"], float]:
        """The modes' centres, float64, and their standard deviation."""
        if self.layout == "ring":
            return self.radius * circle(2 * np.pi * np.arange(self.count) / self.count), self.noise
        ticks = np.linspace(-self.radius, self.radius, round(self.count**0.5))
        return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2), self.noise

    def draw(self, rng: np.random.Generator, label: np.ndarray) -> Points:
        """See `Toy.draw`."""
        return self.modes()[0][label] + self.noise * rng.standard_normal((len(label), 2))

    def log_density(self, x: Points) -> Values:
        """Closed form."""
        return mixture_log_density(x, self.modes()[0], np.full(self.count, 1 / self.count), self.noise)

    def entropy(self) -> float:
        """Trapezoid rule around each mode."""
        return grid_entropy(self.log_density, self.modes()[0], self.noise)


@dataclasses.dataclass(frozen=True)
class Rings(Toy):
    """Concentric circles of equal weight with Gaussian noise.

    Attributes:
        radii: of the circles.
        noise: standard deviation of the isotropic noise.
    """

    radii: tuple[float, ...] = (1.0, 2.0, 3.0)
    noise: float = 0.1

    @property
    def classes(self) -> int:
        """Number of rings."""
        return len(self.radii)

    def draw(self, rng: np.random.Generator, label: np.ndarray) -> Points:
        """See `Toy.draw`."""
        on_circle = np.array(self.radii)[label, None] * circle(2 * np.pi * rng.random(len(label)))
        return on_circle + self.noise * rng.standard_normal((len(label), 2))

    def log_density(self, x: Points) -> Values:
        """Closed form."""
        return self._log_density_at(np.hypot(x[:, 0], x[:, 1]).astype(np.float64))

    def _log_density_at(self, r: Values) -> Values:
        variance = self.noise**2
        radii = np.array(self.radii)[None, :]
        terms = np.log(i0e(r[:, None] * radii / variance)) - (r[:, None] - radii) ** 2 / (2 * variance)
        return logsumexp(terms, axis=1) - np.log(2 * np.pi * variance * len(self.radii))

    def entropy(self) -> float:
        """Quadrature of -2 pi r p log p over r."""
        nodes, weights = quadrature(max(self.radii) + 10 * self.noise, 4 * self.noise)
        log_p = self._log_density_at(nodes)
        return float(-np.sum(weights * 2 * np.pi * nodes * np.exp(log_p) * log_p))


@dataclasses.dataclass(frozen=True)
class Curves(Toy):
    """Base class of `Moons` and `Spirals`: arms of equal weight, each a curve with Gaussian noise."""

    noise: float = 0.1

    @abc.abstractmethod
    def curve(self, u: Values, label: np.ndarray) -> Points:
        """The curve's points at u in [0, 1], on the arms in `label` [b]."""

    @abc.abstractmethod
    def speed(self) -> float:
        """An upper bound of |dc/du|."""

    def draw(self, rng: np.random.Generator, label: np.ndarray) -> Points:
        """Uniform u, then noise."""
        return self.curve(rng.random(len(label)), label) + self.noise * rng.standard_normal((len(label), 2))

    def _nodes(self) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
        nodes, weights = quadrature(1.0, 6 * self.noise / self.speed())
        arms = [self.curve(nodes, np.full(len(nodes), arm)) for arm in range(self.classes)]
        return np.concatenate(arms), np.tile(weights / self.classes, self.classes)

    def log_density(self, x: Points) -> Values:
        """One-dimensional quadrature along the curves."""
        return mixture_log_density(x, *self._nodes(), self.noise)

    def entropy(self) -> float:
        """Trapezoid rule around the curves."""
        return grid_entropy(self.log_density, self._nodes()[0], self.noise)


@dataclasses.dataclass(frozen=True)
class Moons(Curves):
    """Two interleaving half circles of radius 1: around (0, 0) above, around (1, 1/2) below."""

    classes: ClassVar[int] = 2

    def curve(self, u: Values, label: np.ndarray) -> Points:
        """Half circles at constant speed."""
        upper = circle(np.pi * u)
        return np.where(label[:, None] == 0, upper, np.array([[1.0, 0.5]]) - upper)

    def speed(self) -> float:
        """The constant |dc/du|: the length of a half circle."""
        return np.pi


@dataclasses.dataclass(frozen=True)
class Spirals(Curves):
    """Archimedean spirals r = radius * angle / (2 pi turns), rotated against each other.

    Attributes:
        arms: number of spirals.
        turns: number of turns of each spiral around the origin.
        radius: of the outer end.
    """

    arms: int = 2
    turns: float = 1.5
    radius: float = 3.0

    @property
    def classes(self) -> int:
        """Number of arms."""
        return self.arms

    def curve(self, u: Values, label: np.ndarray) -> Points:
        """The angle grows in proportion to u."""
        return (self.radius * u)[:, None] * circle(2 * np.pi * (self.turns * u + label / self.arms))

    def speed(self) -> float:
        """|dc/du| at the outer end, its maximum."""
        return self.radius * float(np.hypot(1.0, 2 * np.pi * self.turns))


@dataclasses.dataclass(frozen=True)
class Checkerboard(Toy):
    """Uniform on the dark squares of a board that covers [-half, half]^2.

    Attributes:
        cells: squares along a side; even.
        half: half the board's side.
    """

    cells: int = 4
    half: float = 4.0

    def __post_init__(self) -> None:
        if self.cells < 2 or self.cells % 2:
            raise UserError(f"cells={self.cells} must be even")

    @property
    def classes(self) -> int:
        """Number of dark squares."""
        return self.cells**2 // 2

    def draw(self, rng: np.random.Generator, label: np.ndarray) -> Points:
        """See `Toy.draw`."""
        row, pair = np.divmod(label, self.cells // 2)
        corner = np.stack([2 * pair + row % 2, row], axis=1)
        return (corner + rng.random((len(label), 2))) * (2 * self.half / self.cells) - self.half

    def log_density(self, x: Points) -> Values:
        """Closed form: minus infinity off the dark squares."""
        cell = np.floor((x.astype(np.float64) + self.half) * (self.cells / (2 * self.half)))
        dark = np.all((cell >= 0) & (cell < self.cells), axis=1) & (cell.sum(axis=1) % 2 == 0)
        return np.where(dark, -self.entropy(), -np.inf)

    def entropy(self) -> float:
        """Closed form: the logarithm of the dark area."""
        return float(np.log(2 * self.half**2))


def circle(angle: Values) -> Points:
    """Points of the unit circle at these angles."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
