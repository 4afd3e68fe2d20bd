"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957) as a function of a parameter tree.

Each kernel, flattened to a matrix W [inputs, outputs], becomes W / sigma with its largest singular value sigma, by

    v <- W u / |W u|,   u <- W^T v / |W^T v|,   sigma = v^T W u                                     (algorithm 1)

where u, v are constants in the gradient. The vectors u are kept from step to step, so that one iteration a step
suffices. It applies to any network.
"""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, PyTree, named

Vectors = dict[str, Array]  # path of the kernel -> u [outputs]
WARMUP_ITERATIONS = 10  # power iterations from a random u at initialisation


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x / (jnp.linalg.norm(x) + 1e-12)


@dataclass(frozen=True)
class SpectralNorm:
    """Divides kernels by their largest singular value.

    Attributes:
        iterations: power iterations in each training step.
        path: regular expression, searched in parameter paths like "params/in/kernel"; arrays of two or more axes.
    """

    iterations: int = 1
    path: str = r"kernel$"

    def init(self, key: Key, params: PyTree) -> Vectors:
        """A vector u for each kernel, after power iterations from a random start."""
        vectors = {
            _name(path): _unit(jax.random.normal(named(key, _name(path)), leaf.shape[-1:]))
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if leaf.ndim > 1 and re.search(self.path, _name(path))
        }
        return SpectralNorm(WARMUP_ITERATIONS, self.path).apply(params, vectors, True)[1]

    def apply(self, params: PyTree, vectors: Vectors, train: bool = False) -> tuple[PyTree, Vectors]:
        """Normalises the kernels.

        Args:
            params: of one player.
            vectors: from `init` or here.
            train: run the power iterations; otherwise the vectors are unchanged.

        Returns:
            (params with each kernel divided by its sigma, vectors).
        """
        new = dict(vectors)

        def normalised(path: tuple, leaf: Array) -> Array:
            u = vectors.get(_name(path))
            if u is None:
                return leaf
            matrix = jax.lax.stop_gradient(leaf.reshape(-1, leaf.shape[-1]))
            for _ in range(self.iterations if train else 0):
                u = _unit(matrix.T @ _unit(matrix @ u))
            new[_name(path)] = u
            v = _unit(matrix @ u)
            return leaf / (v @ leaf.reshape(matrix.shape) @ u)

        return jax.tree_util.tree_map_with_path(normalised, params), new
