"""How tokens are chosen: the usual hyperparameters as one flat record, and a field for custom filters."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array, Key
from genjax.samplers.decoding import filters
from genjax.samplers.decoding.filters import Filter


@dataclass(frozen=True)
class Decoding:
    """Hyperparameters of decoding; the defaults leave the model's distribution unchanged. Equations: see `filters`.

    Attributes:
        temperature: 1 is the model; 0 takes the most likely token ("greedy").
        top_k: number of tokens kept; 0 keeps all.
        top_p: probability kept; 1 keeps all.
        min_p: smallest probability kept, relative to the largest; 0 keeps all.
        typical: probability of the typical set; 1 keeps all.
        repetition: penalty, a factor; 1 for none.
        presence: penalty in nats; 0 for none.
        frequency: penalty in nats per occurrence; 0 for none.
        no_repeat: size of n-grams that must not repeat; 0 for none.
        more: custom filters, applied before temperature and the filters below it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    no_repeat: int = 0
    more: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        ranges = {
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "typical": 0 < self.typical <= 1,
            "repetition": self.repetition > 0,
            "no_repeat": self.no_repeat >= 0,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"decoding.{name}={getattr(self, name)} is out of its range")

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters, in the order in which they are applied."""
        chosen: list[Filter] = []
        if self.repetition != 1.0:
            chosen.append(filters.Repetition(self.repetition))
        if self.presence or self.frequency:
            chosen.append(filters.Presence(self.presence, self.frequency))
        if self.no_repeat:
            chosen.append(filters.NoRepeat(self.no_repeat))
        chosen.extend(self.more)
        if self.temperature not in (0.0, 1.0):
            chosen.append(filters.Temperature(self.temperature))
        if self.top_k:
            chosen.append(filters.TopK(self.top_k))
        if self.top_p < 1.0:
            chosen.append(filters.TopP(self.top_p))
        if self.min_p:
            chosen.append(filters.MinP(self.min_p))
        if self.typical < 1.0:
            chosen.append(filters.Typical(self.typical))
        return tuple(chosen)

    def filtered(
        self, logits: Float[Array, "b v"], tokens: Int[Array, "b n"], length: Int[Array, " b"]
    ) -> Float[Array, "b v"]:
        """Applies all filters.

        Args:
            logits: float32.
            tokens: the rows so far, prompt included.
            length: number of tokens of each row.

        Returns:
            Filtered logits.
        """
        for keep in self.filters:
            logits = keep(logits, tokens, length)
        return logits

    def choose(self, key: Key, logits: Float[Array, "b v"]) -> Int[Array, " b"]:
        """Draws one token per row from filtered logits, or takes the most likely one; int32."""
        if self.temperature == 0.0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return jax.random.categorical(key, logits, mode="high").astype(jnp.int32)
