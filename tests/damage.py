"""Damaged copies of a file's bytes, for tests of readers."""

import numpy as np


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, bytes changed, cut out or repeated, or the end cut off, at one to three places."""
    now = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place, length = int(rng.integers(len(now))), int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind == 0:
            now[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            now[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del now[place : place + length]
        elif kind == 3:
            now[place:place] = now[place : place + length]
        else:
            del now[max(place, 1) :]
        if not now:
            break
    return bytes(now)


def values_changed(value, rng: np.random.Generator):
    """A JSON value with one entry, somewhere in it, missing or of another type."""
    if isinstance(value, dict) and value:
        name = list(value)[int(rng.integers(len(value)))]
        if rng.integers(4) == 0:
            return {key: each for key, each in value.items() if key != name}
        return {**value, name: values_changed(value[name], rng)}
    if isinstance(value, list) and value and rng.integers(2):
        place = int(rng.integers(len(value)))
        return [*value[:place], values_changed(value[place], rng), *value[place + 1 :]]
    others = (None, "x", 3, -1, 0.5, True, [], ["x"], {}, {"x": 1}, float("nan"), 10**30)
    return others[int(rng.integers(len(others)))]
