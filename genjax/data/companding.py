"""Mu-law companding: sound in few levels, fine where it is quiet, for models of one sample after the other.

The continuous form of ITU-T G.711's law, as van den Oord et al. 2016 use it (WaveNet, arXiv:1609.03499, section 2.2):

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),    F^-1(y) = sign(y) ((1 + mu)^|y| - 1) / mu,    x, y in [-1, 1],

then y is cut into `levels` = mu + 1 equal cells; the inverse gives F^-1 of a cell's centre.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import Batch, Key
from genjax.data.transforms import A


@dataclasses.dataclass(frozen=True)
class MuLaw:
    """Maps samples of sound to tokens 0 ... levels - 1, the quietest in the middle.

    What a model then learns is the quantised signal: its likelihoods, in bits per dimension, are bits per sample of
    that signal, and a uniform model has log2(levels).

    Attributes:
        full: the amplitude that F takes for 1: 32768 for int16, 1 for floating point in [-1, 1].
        levels: number of tokens, mu + 1.
    """

    full: float = 32768.0
    levels: int = 256

    def __post_init__(self) -> None:
        if self.levels < 2 or self.full <= 0:
            raise UserError(
                f"mu-law needs levels of at least 2 and full above 0, not {self.levels} and {self.full}"
            )

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Any dtype -> int32 tokens; louder than `full` is as loud as that."""
        x = jnp.clip(batch["x"].astype(jnp.float32) / self.full, -1.0, 1.0)
        mu = self.levels - 1
        y = jnp.sign(x) * jnp.log1p(mu * jnp.abs(x)) / np.log1p(mu)
        token = jnp.floor((y + 1.0) * (self.levels / 2)).astype(jnp.int32)
        return {**batch, "x": jnp.minimum(token, self.levels - 1)}

    def inverse(self, x: A) -> A:
        """Tokens -> the amplitudes of their cells' centres, in -full ... full."""
        centre = (2.0 * x + 1.0) / self.levels - 1.0
        sign = (centre > 0) * 2.0 - 1.0
        return self.full * sign * (float(self.levels) ** abs(centre) - 1.0) / (self.levels - 1)

    def log_det(self, shape: tuple[int, ...]) -> float:
        """Zero: what is modelled are the tokens themselves."""
        return 0.0
