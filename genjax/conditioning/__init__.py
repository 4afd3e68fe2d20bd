"""Conditioning: what a model is given beside x, made from a batch.

Imports: floors 1 and 2. Start with `labels.py`.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.conditioning.labels import Labels

__all__, __getattr__, __dir__ = attach(__name__, __file__)
