"""Data: sources, transforms that the likelihood can invert, and batches that are pure in (seed, step)."""

from genjax.data.arrays import Npz
from genjax.data.batches import Batches, sweep
from genjax.data.clips import Clips
from genjax.data.companding import MuLaw
from genjax.data.data import Data
from genjax.data.digits import Digits
from genjax.data.documents import Lines, Smiles
from genjax.data.emoji import Emoji, EmojiStyles, LineArt
from genjax.data.examples import Examples, Table, Windows
from genjax.data.folder import ImageFolder
from genjax.data.pairs import Both, DigitOutlines
from genjax.data.sound_folder import SoundFolder
from genjax.data.source import Kind, Source
from genjax.data.text import StdlibBytes, TextFile, Vocabulary
from genjax.data.tfds import TFDS
from genjax.data.tokenized import TokenizedText
from genjax.data.tokens import Tokens
from genjax.data.toys import Checkerboard, GaussianMixture, Moons, Rings, Spirals
from genjax.data.transforms import Binarize, Crop, Dequantize, Flip, Quantize, Scale, Transform

__all__ = [
    "TFDS",
    "Batches",
    "Binarize",
    "Both",
    "Checkerboard",
    "Clips",
    "Crop",
    "Data",
    "Dequantize",
    "DigitOutlines",
    "Digits",
    "Emoji",
    "EmojiStyles",
    "Examples",
    "Flip",
    "GaussianMixture",
    "ImageFolder",
    "Kind",
    "LineArt",
    "Lines",
    "Moons",
    "MuLaw",
    "Npz",
    "Quantize",
    "Rings",
    "Scale",
    "Smiles",
    "SoundFolder",
    "Source",
    "Spirals",
    "StdlibBytes",
    "Table",
    "TextFile",
    "TokenizedText",
    "Tokens",
    "Transform",
    "Vocabulary",
    "Windows",
    "sweep",
]
