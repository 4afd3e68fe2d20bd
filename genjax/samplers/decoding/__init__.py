"""Decoding: one loop for everything that is drawn element by element."""

from genjax.samplers.decoding.decoding import Decoding
from genjax.samplers.decoding.generate import Generated, generate
from genjax.samplers.decoding.model import Model, guided

__all__ = ["Decoding", "Generated", "Model", "generate", "guided"]
