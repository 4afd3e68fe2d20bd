"""Networks: the only folder that imports flax."""

from genjax.networks.adapters import FromNNX
from genjax.networks.conv import ConvDecoder, ConvEncoder
from genjax.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from genjax.networks.dit import DiT
from genjax.networks.feedforward import FeedForward
from genjax.networks.fourier import FourierFeatures
from genjax.networks.ladder import Ladder
from genjax.networks.made import MADE
from genjax.networks.minibatch import WithMinibatch
from genjax.networks.mlp import MLP
from genjax.networks.patchgan import PatchGAN
from genjax.networks.pixelcnn import PixelCNN
from genjax.networks.pixelcnnpp import PixelCNNPP
from genjax.networks.pixelrnn import PixelRNN
from genjax.networks.recurrent import Recurrent
from genjax.networks.resgan import ResDiscriminator, ResGenerator
from genjax.networks.resnet import ResNet
from genjax.networks.schedule import FixedLinear, LearnedLinear, Monotone
from genjax.networks.stylegan2 import StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.networks.tokens import TokenTransformer
from genjax.networks.translators import ResNetGenerator, UNetGenerator
from genjax.networks.unet import UNet
from genjax.networks.wavenet import WaveNet

__all__ = [
    "MADE",
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DiT",
    "FeedForward",
    "FixedLinear",
    "FourierFeatures",
    "FromNNX",
    "Ladder",
    "LearnedLinear",
    "Monotone",
    "PatchGAN",
    "PixelCNN",
    "PixelCNNPP",
    "PixelRNN",
    "Recurrent",
    "ResDiscriminator",
    "ResGenerator",
    "ResNet",
    "ResNetGenerator",
    "StyleDiscriminator",
    "StyleMapping",
    "StyleSynthesis",
    "TokenTransformer",
    "UNet",
    "UNetGenerator",
    "WaveNet",
    "WithMinibatch",
]
