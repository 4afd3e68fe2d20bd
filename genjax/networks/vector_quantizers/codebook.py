"""Vector quantization: the nearest row e_k of a codebook, trained or a moving average, in one or several stages.

    Codebook        cost  mean (sg[z] - e)^2 + beta mean (z - sg[e])^2
                    (van den Oord et al. 2017, arXiv:1711.00937, eq. 3)
    MovingCodebook  e_k = m_k / N_k:  N_k <- g N_k + (1 - g) n_k,  m_k <- g m_k + (1 - g) sum of the z assigned to k,
                    an online k-means; cost beta mean (z - sg[e])^2           (appendix A.1 there)
    Residual        each stage quantizes the residual of the previous ones; z is the sum of their codes
                    (Zeghidour et al. 2021, arXiv:2107.03312, section III-C)

Means are over positions and features.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree, named
from genjax.networks.vector_quantizers.base import Codes, Features, Quantized, Step, straight_through


def nearest(z: Features, codebook: Float[Array, "k d"]) -> Int[Array, "b *n"]:
    """Index of the codebook row nearest to each feature vector, by squared distance."""
    flat = z.reshape(-1, z.shape[-1])
    distance = jnp.sum(codebook**2, axis=1)[None] - 2.0 * flat @ codebook.T
    return jnp.argmin(distance, axis=1).astype(jnp.int32).reshape(z.shape[:-1])


def random_rows(key: Key, z: Features, count: int) -> Float[Array, "_ d"]:
    """Feature vectors at random positions of a batch, with replacement.

    Args:
        key: typed PRNG key.
        z: features [b, *n, d].
        count: number of vectors.

    Returns:
        [count, d].
    """
    flat = z.reshape(-1, z.shape[-1])
    return flat[jax.random.randint(key, (count,), 0, len(flat))]


def _init_codebook(key: Key, z: Features, count: int) -> Float[Array, "_ d"]:
    """A codebook of random feature vectors of the first batch, plus a little noise to separate duplicates."""
    rows = random_rows(named(key, "places"), z, count)
    return rows + 0.01 * jnp.std(z) * jax.random.normal(named(key, "noise"), rows.shape)


@dataclass(frozen=True)
class Codebook:
    """Vector quantization with a trained codebook.

    Attributes:
        values: K.
        features: D.
        commitment: beta.
    """

    values: int = 64
    features: int = 8
    commitment: float = 0.25

    @property
    def stack(self) -> int:
        """See `Quantizer.stack`."""
        return 1

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """The codebook [K, D]."""
        return {"codebook": _init_codebook(key, z, self.values)}, {}

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """See `Quantizer.quantize`."""
        codes = nearest(z, params["codebook"])
        e = params["codebook"][codes]
        follow = jnp.mean((jax.lax.stop_gradient(z) - e) ** 2)
        commit = jnp.mean((z - jax.lax.stop_gradient(e)) ** 2)
        return Quantized(straight_through(z, e), codes[..., None], follow + self.commitment * commit, carried)

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """See `Quantizer.lookup`."""
        return params["codebook"][codes[..., 0]]


@dataclass(frozen=True)
class MovingCodebook:
    """Vector quantization with a codebook of exponential moving averages, carried in extra.

    Attributes:
        values: K.
        features: D.
        commitment: beta.
        decay: of the moving sums and counts; with 0 each update is a step of k-means on the batch.
        revive: a code whose moving-average count per batch falls below this is reset to a random feature vector of
            the batch (Dhariwal et al. 2020, arXiv:2005.00341, section 3.3); 0 for never.
    """

    values: int = 64
    features: int = 8
    commitment: float = 0.25
    decay: float = 0.99
    revive: float = 1.0

    @property
    def stack(self) -> int:
        """See `Quantizer.stack`."""
        return 1

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """No trained parameters; codebook [K, D], sums [K, D] and counts [K] are carried."""
        codebook = _init_codebook(key, z, self.values)
        count = jnp.full(self.values, max(1.0, 2.0 * self.revive))
        return {}, {"codebook": codebook, "sum": codebook * count[:, None], "count": count}

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """See `Quantizer.quantize`."""
        codes = nearest(z, carried["codebook"])
        e = carried["codebook"][codes]
        cost = self.commitment * jnp.mean((z - e) ** 2)
        moved = carried if step is None else self._move(carried, jax.lax.stop_gradient(z), codes, key)
        return Quantized(straight_through(z, e), codes[..., None], cost, moved)

    def _move(self, carried: PyTree, z: Features, codes: Int[Array, "b *n"], key: Key) -> PyTree:
        chosen = jax.nn.one_hot(codes.reshape(-1), self.values)
        count = self.decay * carried["count"] + (1.0 - self.decay) * jnp.sum(chosen, axis=0)
        total = self.decay * carried["sum"] + (1.0 - self.decay) * chosen.T @ z.reshape(-1, z.shape[-1])
        there = count[:, None] > 1e-6
        codebook = jnp.where(there, total / jnp.where(there, count[:, None], 1.0), carried["codebook"])
        if self.revive:
            dead, fresh = count[:, None] < self.revive, random_rows(key, z, self.values)
            codebook = jnp.where(dead, fresh, codebook)
            count = jnp.where(dead[:, 0], 2.0 * self.revive, count)
            total = jnp.where(dead, fresh * 2.0 * self.revive, total)
        return {"codebook": codebook, "sum": total, "count": count}

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """See `Quantizer.lookup`."""
        return carried["codebook"][codes[..., 0]]


@dataclass(frozen=True)
class Residual:
    """Residual quantization: z is approximated by the sum of several stages' codes.

    Attributes:
        quantizer: of each stage.
        depth: number of stages.
    """

    quantizer: Codebook | MovingCodebook = MovingCodebook()
    depth: int = 2

    @property
    def values(self) -> int:
        """See `Quantizer.values`: of each stage."""
        return self.quantizer.values

    @property
    def stack(self) -> int:
        """See `Quantizer.stack`: the stages."""
        return self.depth

    @property
    def features(self) -> int:
        """See `Quantizer.features`: of each stage."""
        return self.quantizer.features

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """See `Quantizer.init`: each stage is initialised with the residuals of the previous ones."""
        params, carried = {}, {}
        for name in self._stages():
            params[name], carried[name] = self.quantizer.init(named(key, name), z)
            z = z - self.quantizer.quantize(params[name], carried[name], z, key, None).z
        return (params if any(params.values()) else {}), (carried if any(carried.values()) else {})

    def _stages(self) -> list[str]:
        return [f"stage_{index}" for index in range(self.depth)]

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """See `Quantizer.quantize`."""
        left, codes, cost, moved = z, [], jnp.zeros(()), {}
        for name in self._stages():
            given = (params.get(name, {}), carried.get(name, {}), left, named(key, name), step)
            part = self.quantizer.quantize(*given)
            left, cost = left - jax.lax.stop_gradient(part.z), cost + part.cost
            codes.append(part.codes)
            moved[name] = part.carried
        e = z - jax.lax.stop_gradient(left)
        return Quantized(
            straight_through(z, e), jnp.concatenate(codes, axis=-1), cost, moved if carried else carried
        )

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """See `Quantizer.lookup`."""
        parts = [
            self.quantizer.lookup(params.get(name, {}), carried.get(name, {}), codes[..., index : index + 1])
            for index, name in enumerate(self._stages())
        ]
        return sum(parts[1:], parts[0])
