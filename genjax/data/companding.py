"""Mu-law companding: quantises audio to few levels, finer at small amplitudes, for autoregressive models.

The continuous form of ITU-T G.711's mu-law, as in van den Oord et al. 2016 (WaveNet, arXiv:1609.03499, section 2.2):

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),    F^-1(y) = sign(y) ((1 + mu)^|y| - 1) / mu,    x, y in [-1, 1],

then y is cut into `levels` = mu + 1 equal cells; the inverse maps a cell to F^-1 of its centre.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import Batch, Key
from genjax.data.transforms import A


@dataclasses.dataclass(frozen=True)
class MuLaw:
    """Maps audio samples to tokens 0 ... levels - 1, amplitude 0 in the middle.

    Likelihoods are those of the quantised signal: bits per dimension are bits per audio sample, log2(levels) for a
    uniform model.

    Attributes:
        full: amplitude that corresponds to x = 1: 32768 for int16, 1 for floating point in [-1, 1].
        levels: number of tokens, mu + 1.
    """

    full: float = 32768.0
    levels: int = 256

    def __post_init__(self) -> None:
        if self.levels < 2 or self.full <= 0:
            raise UserError(
                f"mu-law needs levels of at least 2 and full above 0, not {self.levels} and {self.full}"
            )

    @property
    def domain(self) -> tuple[float, float]:
        """Amplitudes -full ... full."""
        return -self.full, self.full

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Any dtype -> int32 tokens; amplitudes beyond `full` are clipped. See `Transform.forward`."""
        x = jnp.clip(batch["x"].astype(jnp.float32) / self.full, -1.0, 1.0)
        mu = self.levels - 1
        y = jnp.sign(x) * jnp.log1p(mu * jnp.abs(x)) / np.log1p(mu)
        token = jnp.floor((y + 1.0) * (self.levels / 2)).astype(jnp.int32)
        return {**batch, "x": jnp.minimum(token, self.levels - 1)}

    def inverse(self, x: A) -> A:
        """Tokens -> amplitudes of the cells' centres, in -full ... full."""
        centre = (2.0 * x + 1.0) / self.levels - 1.0
        sign = (centre > 0) * 2.0 - 1.0
        return self.full * sign * (float(self.levels) ** abs(centre) - 1.0) / (self.levels - 1)

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: the likelihood is that of the tokens."""
        return 0.0
