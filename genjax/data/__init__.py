"""Data: sources, transforms that a likelihood can invert, and batches that are pure in (seed, step).

Imports: `core` (floor 2). Start with `data.py` (source and transforms together) and `source.py` (what a source is).
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.data.batches import Batches, sweep
    from genjax.data.companding import MuLaw
    from genjax.data.data import Data
    from genjax.data.examples import Examples, Table, Windows
    from genjax.data.source import Kind, Source
    from genjax.data.sources.arrays import Npz
    from genjax.data.sources.clips import Clips
    from genjax.data.sources.digits import Digits
    from genjax.data.sources.emoji import Emoji, EmojiStyles, LineArt
    from genjax.data.sources.image_folder import ImageFolder
    from genjax.data.sources.pairs import Both, DigitOutlines
    from genjax.data.sources.sound_folder import SoundFolder
    from genjax.data.sources.tfds import TFDS
    from genjax.data.sources.toys import Checkerboard, GaussianMixture, Moons, Rings, Spirals
    from genjax.data.text.documents import Lines, Smiles
    from genjax.data.text.text import StdlibBytes, TextFile, Vocabulary
    from genjax.data.text.tokenized import TokenizedText
    from genjax.data.text.tokens import Tokens
    from genjax.data.transforms import Binarize, Crop, Dequantize, Flip, Quantize, Scale, Transform

__all__, __getattr__, __dir__ = attach(__name__, __file__)
