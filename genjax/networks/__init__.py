"""Networks: the only folder that imports flax."""

from genjax.networks.adapters import FromNNX
from genjax.networks.conv import ConvDecoder, ConvEncoder
from genjax.networks.mlp import MLP
from genjax.networks.unet import UNet

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "FromNNX", "UNet"]
