"""Keyed permutations of 0 ... num - 1, the same under every version of NumPy.

They use the raw words of Philox, which NumPy keeps stable, and not its distributions, which NumPy may change.
`permutation` computes all entries; `permutation_at` evaluates another permutation at given places, for large num: a
Feistel network permutes the smallest set of 4^k >= num numbers, and cycle walking (iterating it until the result is
below num) restricts it to num numbers (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002, method 2).
"""

import numpy as np
from jaxtyping import Int, UInt64

ROUNDS = 6


def random_words(count: int, *key: int) -> UInt64[np.ndarray, " count"]:
    """Draws 64-bit words from Philox under a key of up to two integers in 0 ... 2^64 - 1."""
    return np.random.Philox(key=np.array([*key, 0, 0][:2], np.uint64)).random_raw(count)


def permutation(num: int, *key: int) -> Int[np.ndarray, " num"]:
    """A random permutation of 0 ... num - 1; all are equally likely over keys.

    Args:
        num: length of the permutation.
        *key: up to two integers in 0 ... 2^64 - 1.

    Returns:
        The whole permutation, int64 [num].
    """
    return np.argsort(random_words(num, *key), kind="stable")


def permutation_at(places: Int[np.ndarray, " b"], num: int, *key: int) -> Int[np.ndarray, " b"]:
    """Evaluates a pseudo-random permutation of 0 ... num - 1 at given places, without computing all of it.

    Args:
        places: in 0 ... num - 1.
        num: length of the permutation, up to 2^62.
        *key: up to two integers in 0 ... 2^64 - 1.

    Returns:
        The entries at these places, int64 [b]. It is not the permutation that `permutation` returns.
    """
    half = max(1, ((num - 1).bit_length() + 1) // 2)
    round_keys = random_words(ROUNDS, *key)
    out = _feistel(places.astype(np.uint64), half, round_keys)
    while (outside := np.flatnonzero(out >= num)).size:
        out[outside] = _feistel(out[outside], half, round_keys)
    return out.astype(np.int64)


def _feistel(x: np.ndarray, half: int, round_keys: np.ndarray) -> np.ndarray:
    """Permutes 0 ... 4^half - 1: each round adds a hash of one half of the bits to the other half."""
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = x >> shift, x & mask
    for round_key in round_keys:
        left, right = right, left ^ (_hash(right ^ round_key) & mask)
    return left << shift | right


def _hash(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014), modulo 2^64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
