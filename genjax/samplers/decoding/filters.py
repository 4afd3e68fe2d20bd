"""Filters of logits: what may be drawn next, and how likely.

A filter maps (logits [b, v], tokens [b, n], length [b]) to logits [b, v]: row b has the tokens `tokens[b, :length[b]]`,
its prompt among them; what lies after means nothing. -inf forbids a token. Filters compose in the order of a tuple.

    temperature T:        l / T
    top-k:                the k largest l stay, with those equal to the k-th
    top-p:                the fewest most probable tokens of probability >= p stay (Holtzman et al. 2020,
                          arXiv:1904.09751)
    min-p:                p_i >= p max_j p_j stay (Nguyen et al. 2024, arXiv:2407.01082)
    typical, mass m:      the fewest tokens of probability >= m whose -log p_i are nearest to the entropy
                          (Meister et al. 2023, arXiv:2202.00666)
    repetition, r:        l / r if l > 0, r l otherwise, of tokens that occurred (Keskar et al. 2019, arXiv:1909.05858)
    presence, frequency:  l - presence [count > 0] - frequency count
    no n-gram twice:      no token that would complete an n-gram that occurred (Paulus et al. 2018, arXiv:1705.04304)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array

Logits = Float[Array, "b v"]
Tokens = Int[Array, "b n"]
Lengths = Int[Array, " b"]


@runtime_checkable
class Filter(Protocol):
    """One filter; implemented by frozen dataclasses."""

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """The new logits; see the module's docstring."""
        ...


def _keep(logits: Array, kept: Bool[Array, "b v"]) -> Array:
    return jnp.where(kept, logits, -jnp.inf)


def _forbid(logits: Array, tokens: Int[Array, "b m"], where: Bool[Array, "b m"]) -> Array:
    """-inf at the tokens of each row where it says so; tokens outside the vocabulary are passed over."""
    rows, width = jnp.arange(len(logits))[:, None], logits.shape[1]
    return logits.at[rows, jnp.where(where, tokens, width)].set(-jnp.inf, mode="drop")


def counts(tokens: Tokens, length: Lengths, width: int) -> Int[Array, "b v"]:
    """How often each token occurred in each row."""
    rows, there = jnp.arange(len(tokens))[:, None], jnp.arange(tokens.shape[1])[None] < length[:, None]
    none = jnp.zeros((len(tokens), width), jnp.int32)
    return none.at[rows, jnp.where(there, tokens, width)].add(1, mode="drop")


def _tail_is(tokens: Tokens, length: Lengths, words: Sequence[int]) -> Bool[Array, " b"]:
    """Whether each row ends with these tokens."""
    match = length >= len(words)
    for back, word in enumerate(reversed(words)):
        index = jnp.maximum(length - 1 - back, 0)[:, None]
        match &= jnp.take_along_axis(tokens, index, axis=1)[:, 0] == word
    return match


@dataclass(frozen=True)
class Temperature:
    """l / temperature."""

    temperature: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """The k largest, with those equal to the k-th."""

    k: int

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        least = jax.lax.top_k(logits, min(self.k, logits.shape[1]))[0][:, -1:]
        return _keep(logits, logits >= least)


@dataclass(frozen=True)
class TopP:
    """The fewest most probable tokens of probability at least p."""

    p: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring; the most probable token always stays."""
        order = jnp.argsort(
            logits, axis=1
        )  # the least probable first, so that small numbers are summed first
        ranked = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=1))
        kept = jnp.cumsum(ranked, axis=1) > 1.0 - self.p
        kept = kept.at[:, -1].set(True)
        return _keep(logits, jnp.take_along_axis(kept, jnp.argsort(order, axis=1), axis=1))


@dataclass(frozen=True)
class MinP:
    """Tokens at least p times as probable as the most probable one."""

    p: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        probability = jax.nn.softmax(logits)
        return _keep(logits, probability >= self.p * probability.max(axis=1, keepdims=True))


@dataclass(frozen=True)
class Typical:
    """The fewest tokens of probability `mass` whose information is nearest to the entropy."""

    mass: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        log_p = jax.nn.log_softmax(logits)
        p = jnp.exp(log_p)
        entropy = -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=1, keepdims=True)
        distance = jnp.abs(-log_p - entropy)
        order = jnp.argsort(distance, axis=1)
        before = jnp.cumsum(jnp.take_along_axis(p, order, axis=1), axis=1)
        last = jnp.minimum(jnp.sum(before < self.mass, axis=1, keepdims=True), logits.shape[1] - 1)
        farthest = jnp.take_along_axis(distance, jnp.take_along_axis(order, last, axis=1), axis=1)
        return _keep(logits, distance <= farthest)


@dataclass(frozen=True)
class Repetition:
    """Makes tokens that occurred less likely by a factor on their logits."""

    penalty: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        weaker = jnp.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return jnp.where(counts(tokens, length, logits.shape[1]) > 0, weaker, logits)


@dataclass(frozen=True)
class Presence:
    """Takes something from the logits of tokens that occurred, once and for each time."""

    presence: float = 0.0
    frequency: float = 0.0

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        often = counts(tokens, length, logits.shape[1])
        return logits - self.presence * (often > 0) - self.frequency * often


@dataclass(frozen=True)
class NoRepeat:
    """No n-gram twice."""

    n: int

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        start = jnp.arange(tokens.shape[1] - self.n + 1)
        match = start[None] + self.n <= length[:, None]
        for j in range(self.n - 1):
            index = jnp.maximum(length - self.n + 1 + j, 0)[:, None]
            match &= tokens[:, start + j] == jnp.take_along_axis(tokens, index, axis=1)
        return _forbid(logits, tokens[:, start + self.n - 1], match)


@dataclass(frozen=True)
class Banned:
    """Sequences of tokens that must not occur: the last token of each is forbidden where the others stand.

    Attributes:
        sequences: each at least one token.
    """

    sequences: tuple[tuple[int, ...], ...]

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the class."""
        for *words, last in self.sequences:
            match = _tail_is(tokens, length, words)
            logits = logits.at[:, last].set(jnp.where(match, -jnp.inf, logits[:, last]))
        return logits


@dataclass(frozen=True)
class Forced:
    """Tokens that must stand at given places, counted from the start of the prompt.

    Attributes:
        tokens: (place, token) pairs.
    """

    tokens: tuple[tuple[int, int], ...]

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """Everything but the token is forbidden at its place."""
        for place, token in self.tokens:
            only = jnp.full(logits.shape[1], -jnp.inf).at[token].set(0.0)
            logits = jnp.where((length == place)[:, None], only[None], logits)
        return logits


@dataclass(frozen=True)
class NotBefore:
    """Tokens, such as the stop, that are forbidden until there are enough.

    Attributes:
        tokens: which.
        length: how many tokens a row must have, prompt included.
    """

    tokens: tuple[int, ...]
    length: int

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the class."""
        wanted = jnp.broadcast_to(jnp.asarray(self.tokens), (len(logits), len(self.tokens)))
        return _forbid(logits, wanted, jnp.broadcast_to((length < self.length)[:, None], wanted.shape))


@dataclass(frozen=True)
class Automaton:
    """Only sequences that a finite automaton accepts, a regular expression or a grammar of bounded depth made into one.

    Attributes:
        table: table[state][token] is the next state, -1 forbids the token. State 0 comes before the first token.
        begins: place of the first token that the automaton reads, counted from the start of the prompt.
    """

    table: tuple[tuple[int, ...], ...]
    begins: int = 0

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """Forbids what has no next state.

        Raises:
            UserError: the table is for another vocabulary.
        """
        table = jnp.asarray(np.array(self.table, np.int32))
        if table.shape[1] != logits.shape[1]:
            raise UserError(f"the automaton reads {table.shape[1]} tokens, the model has {logits.shape[1]}")

        def read(state: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
            place, token = now
            there = (place >= self.begins) & (place < length)
            return jnp.where(there, table[state, token], state), None

        places = jnp.arange(tokens.shape[1])
        state, _ = jax.lax.scan(read, jnp.zeros_like(length), (places, jnp.moveaxis(tokens, 1, 0)))
        return _keep(logits, table[state] >= 0)
