"""Import and export of language models in the layout of Hugging Face: `config.json` and `*.safetensors`, no pickle."""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.networks.huggingface.arrays import to_ours, to_theirs
    from genjax.networks.huggingface.config import CONFIG, FREE, describe, ends, kind_of
    from genjax.networks.huggingface.folder import read, write

__all__, __getattr__, __dir__ = attach(__name__, __file__)
