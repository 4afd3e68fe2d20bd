"""Filters of logits, applied before a token is drawn.

A filter maps (logits [b, v], tokens [b, n], length [b]) to logits [b, v]: row b has the tokens `tokens[b, :length[b]]`,
its prompt included; later entries are undefined. -inf forbids a token. Filters are applied in the order of a tuple.

    temperature T:        l / T
    top-k:                keeps the k largest l, ties with the k-th included
    top-p:                keeps the smallest set of most probable tokens of probability >= p (Holtzman et al. 2020,
                          arXiv:1904.09751)
    min-p:                keeps p_i >= p max_j p_j (Nguyen et al. 2024, arXiv:2407.01082)
    typical, mass m:      keeps the smallest set of probability >= m with -log p_i nearest to the entropy
                          (Meister et al. 2023, arXiv:2202.00666)
    repetition, r:        l / r if l > 0, r l otherwise, of tokens that occurred (Keskar et al. 2019, arXiv:1909.05858)
    presence, frequency:  l - presence [count > 0] - frequency count
    no n-gram twice:      forbids tokens that would repeat an n-gram (Paulus et al. 2018, arXiv:1705.04304)
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
        """Filters logits.

        Args:
            logits: of the next token.
            tokens: the rows so far, prompt included.
            length: number of tokens of each row.

        Returns:
            The new logits; -inf forbids a token.
        """
        ...


def _keep(logits: Array, kept: Bool[Array, "b v"]) -> Array:
    return jnp.where(kept, logits, -jnp.inf)


def _forbid(logits: Array, tokens: Int[Array, "b m"], where: Bool[Array, "b m"]) -> Array:
    """Sets the logits of `tokens` to -inf where `where`; tokens outside the vocabulary are ignored."""
    rows, width = jnp.arange(len(logits))[:, None], logits.shape[1]
    return logits.at[rows, jnp.where(where, tokens, width)].set(-jnp.inf, mode="drop")


def counts(tokens: Tokens, length: Lengths, width: int) -> Int[Array, "b v"]:
    """Counts the occurrences of each token in each row.

    Args:
        tokens: the rows.
        length: number of tokens of each row.
        width: v, size of the vocabulary.

    Returns:
        int32 [b, v].
    """
    rows, there = jnp.arange(len(tokens))[:, None], jnp.arange(tokens.shape[1])[None] < length[:, None]
    none = jnp.zeros((len(tokens), width), jnp.int32)
    return none.at[rows, jnp.where(there, tokens, width)].add(1, mode="drop")


def _ends_with(tokens: Tokens, length: Lengths, suffix: Sequence[int]) -> Bool[Array, " b"]:
    """Whether each row ends with these tokens."""
    match = length >= len(suffix)
    for back, token in enumerate(reversed(suffix)):
        index = jnp.maximum(length - 1 - back, 0)[:, None]
        match &= jnp.take_along_axis(tokens, index, axis=1)[:, 0] == token
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
    """Keeps the k largest logits, ties with the k-th included."""

    k: int

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        least = jax.lax.top_k(logits, min(self.k, logits.shape[1]))[0][:, -1:]
        return _keep(logits, logits >= least)


@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of most probable tokens whose probability is at least p."""

    p: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring; the most probable token is always kept."""
        order = jnp.argsort(logits, axis=1)  # ascending, so that small numbers are summed first
        ranked = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=1))
        kept = jnp.cumsum(ranked, axis=1) > 1.0 - self.p
        kept = kept.at[:, -1].set(True)
        return _keep(logits, jnp.take_along_axis(kept, jnp.argsort(order, axis=1), axis=1))


@dataclass(frozen=True)
class MinP:
    """Keeps tokens at least p times as probable as the most probable one."""

    p: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        probability = jax.nn.softmax(logits)
        return _keep(logits, probability >= self.p * probability.max(axis=1, keepdims=True))


@dataclass(frozen=True)
class Typical:
    """Keeps the smallest set of probability `mass` whose information is nearest to the entropy."""

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
    """Scales down the logits of tokens that occurred."""

    penalty: float

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        weaker = jnp.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return jnp.where(counts(tokens, length, logits.shape[1]) > 0, weaker, logits)


@dataclass(frozen=True)
class Presence:
    """Subtracts from the logits of tokens that occurred, once (`presence`) and per occurrence (`frequency`)."""

    presence: float = 0.0
    frequency: float = 0.0

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the module's docstring."""
        often = counts(tokens, length, logits.shape[1])
        return logits - self.presence * (often > 0) - self.frequency * often


@dataclass(frozen=True)
class NoRepeat:
    """Forbids repeated n-grams."""

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
    """Forbids sequences of tokens: the last token of each is forbidden after the others.

    Attributes:
        sequences: each of at least one token.
    """

    sequences: tuple[tuple[int, ...], ...]

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the class's docstring."""
        for *prefix, last in self.sequences:
            match = _ends_with(tokens, length, prefix)
            logits = logits.at[:, last].set(jnp.where(match, -jnp.inf, logits[:, last]))
        return logits


@dataclass(frozen=True)
class Forced:
    """Forces tokens at given positions, counted from the start of the prompt.

    Attributes:
        tokens: (position, token) pairs.
    """

    tokens: tuple[tuple[int, int], ...]

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """Forbids all other tokens at its position."""
        for place, token in self.tokens:
            only = jnp.full(logits.shape[1], -jnp.inf).at[token].set(0.0)
            logits = jnp.where((length == place)[:, None], only[None], logits)
        return logits


@dataclass(frozen=True)
class NotBefore:
    """Forbids tokens, such as the stop token, in short sequences.

    Attributes:
        tokens: the forbidden tokens.
        length: minimum length of a row, prompt included.
    """

    tokens: tuple[int, ...]
    length: int

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """See the class's docstring."""
        wanted = jnp.broadcast_to(jnp.asarray(self.tokens), (len(logits), len(self.tokens)))
        return _forbid(logits, wanted, jnp.broadcast_to((length < self.length)[:, None], wanted.shape))


@dataclass(frozen=True)
class Automaton:
    """Allows only sequences that a finite automaton accepts (a regular expression, a grammar of bounded depth).

    Attributes:
        table: table[state][token] is the next state, -1 forbids the token. The initial state is 0.
        begins: position of the first token that the automaton reads, counted from the start of the prompt.
    """

    table: tuple[tuple[int, ...], ...]
    begins: int = 0

    def __call__(self, logits: Logits, tokens: Tokens, length: Lengths) -> Logits:
        """Forbids tokens without a next state.

        Raises:
            UserError: the table has another vocabulary size.
        """
        table = jnp.asarray(np.array(self.table, np.int32))
        if table.shape[1] != logits.shape[1]:
            raise UserError(f"the automaton has {table.shape[1]} tokens, the model {logits.shape[1]}")

        def read(state: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
            place, token = now
            there = (place >= self.begins) & (place < length)
            return jnp.where(there, table[state, token], state), None

        places = jnp.arange(tokens.shape[1])
        state, _ = jax.lax.scan(read, jnp.zeros_like(length), (places, jnp.moveaxis(tokens, 1, 0)))
        return _keep(logits, table[state] >= 0)
