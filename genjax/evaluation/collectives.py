"""Collective operations of a compiled program, parsed from its HLO text.

A line of the program such as

    %all-gather.1 = f32[64,192]{1,0} all-gather(%param), replica_groups=...

gives the output on each device: 64 x 192 numbers. A collective within a loop counts once; where the compiler has fused
several into one, its result is a tuple. Asynchronous collectives are counted at their start.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_LINE = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"([a-z]+)(\d+)?\w*\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
        kind: one of `KINDS`.
        shapes: of its output arrays on each device.
        bytes: total size of the outputs.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each array."""
        return tuple(math.prod(shape) for shape in self.shapes)


def collectives(program: str) -> list[Collective]:
    """All collectives of a compiled program.

    Args:
        program: `jax.jit(f).lower(...).compile().as_text()`.

    Returns:
        The collectives in program order.
    """
    return [_read(*match.groups()) for match in _LINE.finditer(program)]


def _read(result: str, kind: str, start: str | None) -> Collective:
    arrays = [(int(bits or 8), _shape(shape)) for _, bits, shape in _ARRAY.findall(result)]
    if start and kind != "all-reduce":  # the result tuple holds operands, then outputs
        arrays = arrays[len(arrays) // 2 :]
    total = sum(bits * math.prod(shape) for bits, shape in arrays) // 8
    return Collective(kind, tuple(shape for _, shape in arrays), total)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def table(found: Iterable[Collective]) -> list[str]:
    """One line per kind that occurs: count, and MB of outputs per device."""
    found = list(found)
    lines = []
    for kind in KINDS:
        some = [one for one in found if one.kind == kind]
        if some:
            lines.append(f"{kind:20} {len(some):4} x {sum(one.bytes for one in some) / 1e6:10.3f} MB")
    return lines or ["no collectives"]
