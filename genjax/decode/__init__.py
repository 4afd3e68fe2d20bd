"""Decoding: one loop over places for everything that is drawn element by element."""

from genjax.decode.decoding import Decoding
from genjax.decode.generate import Generated, generate
from genjax.decode.model import Model, guided

__all__ = ["Decoding", "Generated", "Model", "generate", "guided"]
