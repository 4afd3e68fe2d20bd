"""Inverse problems on Gaussian data, whose posteriors are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import CorrelatedData, GaussianData

from genjax.core.errors import UserError
from genjax.diffusion.process import VE, VP, RectifiedFlow
from genjax.samplers.grids import Quadratic, Uniform
from genjax.samplers.inverse import (
    Corrected,
    Repeated,
    adjoint,
    descended,
    grey,
    inpaint,
    masked,
    onto,
    pooled,
    pseudo_inverse,
    restore,
)
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import SamplerState, sample

pytestmark = pytest.mark.optimised

IMAGES = (2, 4, 6, 3)
MASK = (np.arange(72).reshape(4, 6, 3) % 3 == 0).astype(np.float32)[None]
OPERATORS = {"masked": masked(jnp.asarray(MASK)), "grey": grey, "pooled": pooled(2)}


def images(index: int) -> jax.Array:
    return jax.random.normal(jax.random.key(index), IMAGES)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_partial_isometries_with_their_adjoints(name):
    """<A x, y> = <x, A^T y>, A A^T A = A, and each equals its definition."""
    operator, x = OPERATORS[name], images(0)
    transposed, y = adjoint(operator, x), operator(images(1))
    np.testing.assert_allclose(jnp.vdot(operator(x), y), jnp.vdot(x, transposed(y)), rtol=1e-5)
    np.testing.assert_allclose(operator(transposed(operator(x))), operator(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(operator(onto(operator, y, x)), y, rtol=1e-5, atol=1e-6)
    values = np.asarray(x)
    plain = {
        "masked": np.where(MASK > 0, values, 0.0),
        "grey": 3**0.5 * values.mean(axis=-1, keepdims=True),
        "pooled": 2 * np.stack([values[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(axis=0),
    }[name]
    np.testing.assert_allclose(operator(x), plain, rtol=1e-5, atol=1e-6)


def test_blocks_must_divide_the_image():
    with pytest.raises(UserError, match="factor=4 must divide the images' 4 x 6 pixels"):
        pooled(4)(images(0))


MATRIX = ((1.0, 0.5, -0.3), (0.2, -1.0, 0.4))
PLAIN, Y = GaussianData(mean=0.7, std=0.4), (0.9, -0.4)


def posterior(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of x_0 ~ N(m, s^2 I) given A x_0 + noise = y."""
    a, mean = np.array(MATRIX), np.full(3, PLAIN.mean)
    gain = PLAIN.std**2 * a.T @ np.linalg.inv(PLAIN.std**2 * a @ a.T + noise**2 * np.eye(2))
    return mean + gain @ (np.array(Y) - a @ mean), PLAIN.std**2 * (np.eye(3) - gain @ a)


def guided(process, num: int, noise: float, dtype=jnp.float32, data_std: float = PLAIN.std):
    matrix, y = jnp.asarray(MATRIX, dtype), jnp.tile(jnp.asarray(Y, dtype)[None], (num, 1))
    return pseudo_inverse(PLAIN.denoise(process), process, lambda x: x @ matrix.T, y, noise, data_std)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("process", [VP(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_pseudo_inverse_guidance_is_the_posteriors_denoiser(process, noise):
    """E[x_0 | x_t, y] for a dense A, from the posterior's mean and covariance, float64."""
    with jax.enable_x64(True):
        mean, covariance = posterior(noise)
        x, t = jax.random.normal(jax.random.key(0), (7, 3), jnp.float64), jnp.asarray(0.4)
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(3))
        exact = mean[None] + (np.asarray(x) - alpha * mean[None]) @ gain.T
        ours = guided(process, 7, noise, jnp.float64)(x, t)
        np.testing.assert_allclose(ours.x0, exact, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(process.marginal(ours.x0, ours.eps, t), x, rtol=1e-10)


def test_samples_under_pseudo_inverse_guidance_have_the_posteriors_moments():
    num, (mean, covariance) = 20_000, posterior(0.3)
    denoise = guided(VP(), num, 0.3)
    x = jax.jit(lambda key: sample(denoise, VP(), DDIM(steps=200), key, (num, 3)))(jax.random.key(1))
    x = np.asarray(x, np.float64)
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=4 * PLAIN.std / np.sqrt(num) + 2e-3)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=6 * PLAIN.std**2 / np.sqrt(num) + 1e-3)


def test_with_zero_data_std_it_is_the_likelihood_of_dps():
    """grad of -||y - A x_0(x_t)||^2 / (2 noise^2) (Chung et al. 2023, eq. 16), by finite differences."""
    with jax.enable_x64(True):
        process, t, noise = VP(), jnp.asarray(0.4), 0.3
        x = jax.random.normal(jax.random.key(0), (3, 3), jnp.float64)
        ours = guided(process, 3, noise, jnp.float64, data_std=0.0)(x, t)
        plain, matrix, step = PLAIN.denoise(process), np.array(MATRIX), 1e-5

        def log_likelihood(x):
            residual = np.array(Y)[None] - np.asarray(plain(x, t).x0) @ matrix.T
            return -np.sum(residual**2, axis=1) / (2 * noise**2)

        moves = [jnp.asarray(step * row)[None] for row in np.eye(3)]
        gradient = np.stack([(log_likelihood(x + m) - log_likelihood(x - m)) / (2 * step) for m in moves], 1)
        np.testing.assert_allclose(
            ours.eps - plain(x, t).eps, -process.sigma(t) * gradient, rtol=1e-6, atol=1e-8
        )


PLANE, KNOWN = CorrelatedData(), 1.2
HALF = ((1.0, 0.0),)


def conditional() -> tuple[float, float]:
    """Mean and standard deviation of the second coordinate given the first."""
    (a, b), (_, c) = PLANE.covariance
    return float(b / a * KNOWN), float(np.sqrt(c - b**2 / a))


def filled(process, sampler, repeats: int, num: int = 4000) -> np.ndarray:
    known = jnp.tile(jnp.asarray([[KNOWN, 9.0]]), (num, 1))
    draw = lambda key: inpaint(
        PLANE.denoise(process), process, sampler, key, known, jnp.asarray(HALF), repeats
    )
    return np.asarray(jax.jit(draw)(jax.random.key(2)), np.float64)


@pytest.mark.slow
def test_repeats_bring_replacement_to_the_conditional_distribution():
    mean, std = conditional()
    bias, std_error = {}, {}
    for repeats in (1, 16):
        x = filled(VP(), DDIM(steps=100, eta=1.0, grid=Quadratic()), repeats)
        np.testing.assert_array_equal(x[:, 0], np.float64(np.float32(KNOWN)))
        bias[repeats], std_error[repeats] = abs(x[:, 1].mean() - mean), abs(x[:, 1].std() / std - 1)
    assert bias[1] > 0.2, bias
    assert bias[16] < 0.04, bias
    assert std_error[16] < 0.1 < 0.12 < std_error[1], std_error


def test_known_pixels_are_kept_if_the_process_ends_in_noise():
    x = filled(VE(sigma_max=5.0), DDIM(steps=10, eta=1.0, grid=Uniform(end=0.1)), 2, num=50)
    np.testing.assert_array_equal(x[:, 0], np.float64(np.float32(KNOWN)))


def test_restored_images_reproduce_the_measurements():
    operator, y = OPERATORS["pooled"], OPERATORS["pooled"](images(3))
    sampler, denoise = DDIM(steps=5, eta=1.0), PLAIN.denoise(VP())
    x = jax.jit(lambda key: restore(denoise, VP(), sampler, key, operator, y, IMAGES))(jax.random.key(0))
    np.testing.assert_allclose(operator(x), y, rtol=1e-5, atol=1e-5)
    other = x - onto(operator, 0.0 * y, x)  # outside of A's range: the model's N(m, s^2)
    assert float(jnp.std(x - other)) > 0.1


def test_zero_repeats_raise():
    with pytest.raises(UserError, match="repeats=0 must be at least 1"):
        filled(VP(), DDIM(steps=2), 0, num=2)


def test_dps_moves_samples_towards_the_measurement():
    """The residual falls with strength, and strength 0 is the sampler itself."""
    operator, y = OPERATORS["pooled"], OPERATORS["pooled"](0.4 * images(3))
    denoise, sampler = PLAIN.denoise(VP()), DDIM(steps=40)

    def residual(strength: float) -> float:
        steps = Corrected(sampler, descended(operator, y, strength))
        x = sample(denoise, VP(), steps, jax.random.key(0), IMAGES)
        return float(jnp.linalg.norm(operator(x) - y))

    plain = float(jnp.linalg.norm(operator(sample(denoise, VP(), sampler, jax.random.key(0), IMAGES)) - y))
    assert abs(residual(0.0) - plain) < 1e-4
    assert residual(0.3) < 0.9 * plain
    assert residual(1.0) < 0.4 * plain


@dataclasses.dataclass(frozen=True)
class Stay:
    """A sampler that does not change the state."""

    def times(self, process):
        return jnp.asarray([0.9, 0.2])

    def init(self, x):
        return SamplerState(x=x)

    def step(self, denoise, process, state, t, s, key):
        return state


def test_repaint_noises_back_by_the_forward_transition():
    """Between two repeats x_t = a x_s + b z, here over one long step."""
    process, t, s = VP(), jnp.asarray(0.9), jnp.asarray(0.2)
    keep = lambda denoise, process, x_t, x_s, t, s, key: x_s
    start = SamplerState(x=jnp.full((40_000, 1), 2.0))
    denoise = GaussianData().denoise(process)
    x = np.asarray(
        Repeated(Stay(), keep, 2).step(denoise, process, start, t, s, jax.random.key(0)).x, np.float64
    )
    a = float(process.alpha(t) / process.alpha(s))
    variance = float(process.sigma(t) ** 2) - a**2 * float(process.sigma(s) ** 2)
    assert abs(x.mean() - 2.0 * a) < 4 * np.sqrt(variance / x.size)
    assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / x.size)
