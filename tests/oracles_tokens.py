"""Distributions of short token sequences and their diffusion, by enumeration in float64."""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from genjax.diffusion.discrete import Absorbing, TokenProcess


def sequences(values: int, length: int) -> np.ndarray:
    """All sequences, int32 [values^length, length], the last position varying fastest."""
    return np.array(list(itertools.product(range(values), repeat=length)), np.int32)


def index(x: np.ndarray, values: int) -> np.ndarray:
    """Index of each sequence in `sequences`."""
    return np.asarray(x) @ values ** np.arange(x.shape[-1])[::-1]


def cumulative(process: TokenProcess, t: float) -> np.ndarray:
    """The matrix q(x_t | x_0) of one token over all symbols [S, S], with MASK absorbing."""
    symbols, keep = process.symbols, 1.0 - float(process.noise(jnp.asarray(t)))
    law = np.zeros(symbols)
    law[process.vocab :] = 1.0
    if not isinstance(process, Absorbing):
        law[:] = 1.0 / symbols
    return keep * np.eye(symbols) + (1.0 - keep) * law[None]


def product(rows: np.ndarray) -> np.ndarray:
    """The joint distribution of independent positions [..., n, S] -> [..., S^n]."""
    out = np.ones((*rows.shape[:-2], 1))
    for i in range(rows.shape[-2]):
        out = (out[..., :, None] * rows[..., i, None, :]).reshape(*rows.shape[:-2], -1)
    return out


def enumerated(bound, process, log_p, clean, nodes: int = 0) -> np.ndarray:
    """Mean of `bound.nats` over t and all x_t at every clean sequence, float64 [len(clean)].

    Args:
        bound: has `nats`.
        process: of the noise.
        log_p: t -> log p(x_0 | x_t) of all noisy sequences [S^n, n, K].
        clean: [z, n].
        nodes: of the Gauss-Legendre rule on [0, 1]; 0 for the times 1 / T, ... 1 of T = `bound.steps`.
    """
    if not nodes:
        times = np.arange(1, bound.steps + 1) / bound.steps
        weights = np.full(bound.steps, 1 / bound.steps)
    else:
        roots, weights = np.polynomial.legendre.leggauss(nodes)
        times, weights = (roots + 1) / 2, weights / 2
    noisy = sequences(process.symbols, clean.shape[1])
    chance = np.stack([product(cumulative(process, t)[clean]) for t in times])  # [times, clean, noisy]
    t, z, y = (grid.ravel() for grid in np.indices(chance.shape))
    given = np.stack([log_p(time) for time in times])
    nats = jax.jit(functools.partial(bound.nats, process))(clean[z], noisy[y], times[t], given[t, y])
    nats = np.asarray(nats).reshape(chance.shape)
    return np.einsum("t,tzy->z", weights, np.where(chance > 0, chance * nats, 0.0))


@dataclass(frozen=True)
class Joint:
    """A known distribution of sequences, with dependent positions: random fixed probabilities."""

    values: int = 3
    length: int = 2
    seed: int = 0

    @property
    def clean(self) -> np.ndarray:
        """All sequences [K^n, n]."""
        return sequences(self.values, self.length)

    @property
    def p(self) -> np.ndarray:
        """Their probabilities [K^n]."""
        draws = np.random.default_rng(self.seed).gamma(0.6, size=self.values**self.length) + 0.02
        return draws / draws.sum()

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        return float(-np.sum(self.p * np.log(self.p)))

    def noisy(self, process: TokenProcess, t: float) -> np.ndarray:
        """q(x_t | x_0) of whole sequences [K^n, S^n]."""
        return product(cumulative(process, t)[self.clean])

    def posterior(self, process: TokenProcess, t: float) -> np.ndarray:
        """p(x_0^i | x_t) at each position by Bayes' rule [S^n, n, K]; uniform for impossible x_t."""
        joint = self.p[:, None] * self.noisy(process, t)
        hits = np.eye(self.values)[self.clean]
        mass = np.einsum("xy,xik->yik", joint, hits)
        total = mass.sum(-1, keepdims=True)
        return np.where(total > 0, mass / np.where(total > 0, total, 1.0), 1.0 / self.values)

    def denoise(self, process: TokenProcess):
        """The exact denoiser: log p(x_0 | x_t) at any scalar t, under jit, by Bayes' rule in JAX."""
        clean, p = jnp.asarray(self.clean), jnp.asarray(self.p)

        def exact(x, t):
            noise = process.noise(t)
            here = x[:, None] == clean[None]
            gone = (x == process.vocab) if isinstance(process, Absorbing) else jnp.ones_like(x, bool)
            share = 1.0 if isinstance(process, Absorbing) else 1.0 / process.vocab
            chance = (1.0 - noise) * here + noise * share * gone[:, None]
            weight = p[None] * jnp.prod(chance, axis=-1)
            hits = jnp.asarray(np.eye(self.values)[self.clean])
            mass = jnp.einsum("bx,xik->bik", weight, hits)
            return jnp.log(mass / jnp.sum(weight, axis=-1)[:, None, None])

        return exact
