"""Editing by noising and denoising: SDEdit, and latents of the probability-flow ODE.

SDEdit (Meng et al. 2022, arXiv:2108.01073, alg. 1) noises an image to a time t_0, and samples from there:

    x_{t_0} = alpha x + sigma z,        then the sampler from t_0 down.

A t_0 near 0 keeps the image; t_0 = 1 keeps only alpha(1) x of it.

The ODE dx/dt = alpha' x_0 + sigma' eps maps data to latents and back (Song et al. 2021, arXiv:2011.13456, sec. 4.3;
Song et al. 2021, DDIM, arXiv:2010.02502, sec. 5.4). A deterministic sampler's step solves it from t to s in either
direction, so encoding runs the sampler upwards in time; the data are taken to be at a time `low` above 0.

Two latents at an angle theta are interpolated along an arc, which preserves their norm (DDIM, sec. 5.3):

    slerp(a, b, w) = (sin((1 - w) theta) a + sin(w theta) b) / sin(theta).
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named
from genjax.diffusion.prediction import Denoise
from genjax.diffusion.process import Process, expand
from genjax.samplers.scan import Sampler, SamplerState, sample

State = Float[Array, "b ..."]
Path = Literal["spherical", "linear"]


@dataclass(frozen=True)
class Between:
    """A sampler whose grid is rescaled to other ends, with the same number of steps.

    Attributes:
        sampler: the step and its grid.
        low: last time; None scales the grid's own end by the same factor as its start.
        high: first time.
        upwards: run from `low` to `high`.
    """

    sampler: Sampler
    low: float | None
    high: float
    upwards: bool = False

    def times(self, process: Process) -> Float[Array, " n"]:
        """Times from `high` to `low`, or from `low` to `high` if `upwards`."""
        own = self.sampler.times(process)
        low = own[-1] * self.high / own[0] if self.low is None else self.low
        times = low + (self.high - low) * (own - own[-1]) / (own[0] - own[-1])
        return jnp.flip(times) if self.upwards else times

    def init(self, x: State) -> SamplerState:
        """The sampler's initial state."""
        return self.sampler.init(x)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """The sampler's step; see `Sampler.step`."""
        return self.sampler.step(denoise, process, state, t, s, key)


def sdedit(
    denoise: Denoise, process: Process, sampler: Sampler, key: Key, x: State, strength: float
) -> State:
    """Noises x to a time, and samples from there; SDEdit, see the module's docstring.

    Args:
        denoise: (x, t) -> Prediction.
        process: alpha and sigma.
        sampler: the step and its grid, which is rescaled to start at `strength`.
        key: typed PRNG key.
        x: data [b, ...], as the model sees them.
        strength: t_0 in (0, 1].

    Returns:
        Edited data [b, ...].

    Raises:
        UserError: `strength` is not in (0, 1].
    """
    if not 0.0 < strength <= 1.0:
        raise UserError(f"strength={strength} must be a time in (0, 1]")
    noise = jax.random.normal(named(key, "edit"), x.shape, x.dtype)
    start = process.marginal(x, noise, jnp.asarray(strength, x.dtype))
    rescaled = Between(sampler, None, strength)
    return sample(denoise, process, rescaled, named(key, "walk"), x.shape, start=start)


def encode(
    denoise: Denoise, process: Process, sampler: Sampler, x: State, low: float = 1e-3, high: float = 1.0
) -> State:
    """The latents of data: the probability-flow ODE solved from `low` up to `high`.

    Args:
        denoise: (x, t) -> Prediction.
        process: alpha and sigma.
        sampler: a deterministic one, such as `DDIM()` or `Heun()`; its grid is rescaled.
        x: data [b, ...], as the model sees them.
        low: time at which the data are taken to be, above 0.
        high: time of the latents; below 1 where the prediction cannot be decoded at 1.

    Returns:
        Latents [b, ...], near N(0, sigma(high)^2 I).
    """
    rescaled = Between(sampler, low, high, upwards=True)
    return sample(denoise, process, rescaled, jax.random.key(0), x.shape, start=x)


def decode(
    denoise: Denoise, process: Process, sampler: Sampler, z: State, low: float = 1e-3, high: float = 1.0
) -> State:
    """Maps latents to data: the inverse of `encode`.

    Args:
        denoise: see `encode`.
        process: see `encode`.
        sampler: see `encode`.
        z: latents [b, ...].
        low: see `encode`.
        high: see `encode`.

    Returns:
        Data [b, ...], as the model sees them.
    """
    return sample(denoise, process, Between(sampler, low, high), jax.random.key(0), z.shape, start=z)


def slerp(a: State, b: State, w: Float[Array, ""]) -> State:
    """Spherical interpolation of each example, linear where a and b are parallel.

    Args:
        a: latents [b, ...].
        b: latents [b, ...].
        w: weight of b, scalar in [0, 1].

    Returns:
        Latents [b, ...].
    """
    rest = tuple(range(1, a.ndim))
    norms = jnp.sqrt(jnp.sum(a**2, axis=rest) * jnp.sum(b**2, axis=rest))
    cosine = jnp.sum(a * b, axis=rest) / jnp.where(norms > 0, norms, 1.0)
    theta = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    sine = jnp.sin(theta)
    arc = sine > jnp.sqrt(jnp.finfo(a.dtype).eps)
    safe = jnp.where(arc, sine, 1.0)
    of_a = jnp.where(arc, jnp.sin((1.0 - w) * theta) / safe, 1.0 - w)
    of_b = jnp.where(arc, jnp.sin(w * theta) / safe, w)
    return expand(of_a, a) * a + expand(of_b, b) * b


def lerp(a: State, b: State, w: Float[Array, ""]) -> State:
    """Linear interpolation.

    Args:
        a: latents [b, ...].
        b: latents [b, ...].
        w: weight of b, scalar in [0, 1].

    Returns:
        (1 - w) a + w b.
    """
    return (1.0 - w) * a + w * b


PATHS = {"spherical": slerp, "linear": lerp}


def interpolate(
    denoise: Denoise,
    process: Process,
    sampler: Sampler,
    a: State,
    b: State,
    num: int,
    path: Path = "spherical",
    low: float = 1e-3,
    high: float = 1.0,
) -> Float[Array, "n b ..."]:
    """Interpolates between data in latent space.

    Args:
        denoise: (x, t) -> Prediction.
        process: alpha and sigma.
        sampler: a deterministic one; see `encode`.
        a: data [b, ...], as the model sees them.
        b: other data [b, ...].
        num: n, the number of equally spaced points; the first and last are a and b, encoded and decoded.
        path: interpolation of the latents.
        low: see `encode`.
        high: see `encode`.

    Returns:
        Data [n, b, ...].
    """
    from_a, to_b = (encode(denoise, process, sampler, x, low, high) for x in (a, b))

    def point(w: Array) -> Array:
        return decode(denoise, process, sampler, PATHS[path](from_a, to_b, w), low, high)

    return jax.lax.map(point, jnp.linspace(0.0, 1.0, num, dtype=a.dtype))
