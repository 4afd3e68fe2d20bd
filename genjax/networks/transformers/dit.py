"""Diffusion transformer (Peebles & Xie 2022, arXiv:2212.09748): a transformer over the patches of an image.

    h = W patch + position,   h <- blocks(h, e),   patch' = W' (norm(h) (1 + s) + m) + b',

with adaLN-zero blocks, see `transformer`; e is made of time and cond. Output layer and gates are initialised to
zero, so the output is zero at first.
"""

import math
from typing import Literal

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.linen import Dense
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector, kept
from genjax.networks.transformers.transformer import Transformer


class DiT(Transformer, ConditionalNetwork):
    """Diffusion transformer on images.

    Attributes:
        patch: side of the square patches; divides the sides of the image.
        zero_out: initialise the output layer to zero.
    """

    patch: int = 2
    zero_out: bool = True

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Maps images to images.

        Args:
            x: images.
            t: times, or None.
            cond: conditioning vector, or None.
            out: number of output channels, or (h, w, channels).
            train: whether dropout is on.

        Returns:
            float32 [b, h, w, channels].

        Raises:
            UserError: `patch` does not divide the sides of the image, or `out` has another shape.
        """
        spatial = x.shape[1:-1]
        if any(n % self.patch for n in spatial):
            raise UserError(f"patch={self.patch} must divide the sides of the image, which are {spatial}")
        features = kept(spatial, out)
        e = self.embed(t, cond)
        patches = ops.space_to_depth(x, self.patch)
        shape = patches.shape[1:-1]
        h = patches.reshape(x.shape[0], math.prod(shape), -1)
        h = Dense(self.width, dtype=self.dtype, name="in")(h)
        h = self.body(h, e, shape, train=train)
        h = self.head(h, e, features * self.patch**2)
        return ops.depth_to_space(h.reshape(x.shape[0], *shape, -1), self.patch)


def dit(size: Literal["S", "B", "L", "XL"], patch: int = 2, dtype: str = "float32") -> DiT:
    """DiT of a published size (Peebles & Xie 2022, table 1): 33, 130, 458, 675 million parameters at patch 2.

    Args:
        size: "S", "B", "L" or "XL".
        patch: 2, 4 or 8 in the paper.
        dtype: dtype of the blocks' computation.

    Returns:
        The network.
    """
    depth, width, heads = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}[
        size
    ]
    return DiT(width=width, depth=depth, heads=heads, patch=patch, dtype=dtype)
