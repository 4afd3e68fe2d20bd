"""Networks: functions with parameters, `init` and `apply`. The only room that imports flax.

Imports: `core` (floor 2). Start with `convolutional/unet.py`, then `layers/ops.py`, the operations.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.networks.adversarial.dcgan import DCGANDiscriminator, DCGANGenerator
    from genjax.networks.adversarial.patchgan import PatchGAN
    from genjax.networks.adversarial.resgan import ResDiscriminator, ResGenerator
    from genjax.networks.adversarial.stylegan2 import StyleDiscriminator, StyleMapping, StyleSynthesis
    from genjax.networks.adversarial.translators import ResNetGenerator, UNetGenerator
    from genjax.networks.autoregressive.made import MADE
    from genjax.networks.autoregressive.pixelcnn import PixelCNN
    from genjax.networks.autoregressive.pixelcnnpp import PixelCNNPP
    from genjax.networks.autoregressive.pixelrnn import PixelRNN
    from genjax.networks.autoregressive.recurrent import Recurrent
    from genjax.networks.autoregressive.wavenet import WaveNet
    from genjax.networks.convolutional.conv import ConvDecoder, ConvEncoder
    from genjax.networks.convolutional.ladder import Ladder
    from genjax.networks.convolutional.resnet import ResNet
    from genjax.networks.convolutional.unet import UNet
    from genjax.networks.feedforward import FeedForward
    from genjax.networks.fourier import FourierFeatures
    from genjax.networks.layers.minibatch import WithMinibatch
    from genjax.networks.mlp import MLP
    from genjax.networks.nnx import FromNNX
    from genjax.networks.noise_schedule import FixedLinear, LearnedLinear, Monotone
    from genjax.networks.transformers.dit import DiT
    from genjax.networks.transformers.token_transformer import TokenTransformer

__all__, __getattr__, __dir__ = attach(__name__, __file__)
