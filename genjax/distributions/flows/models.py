"""Published flows, composed of bijectors.

coupling          RealNVP's couplings of vectors (with `Spline`: neural spline flows, arXiv:1906.04032)
autoregressive    MAF (arXiv:1705.07057), with `Spline` its spline form; inverted, IAF (arXiv:1606.04934)
glow              Glow's multi-scale flow of images (arXiv:1807.03039, figure 2)
realnvp           RealNVP's (arXiv:1605.08803, section 3.6), with ActNorm in place of batch normalisation
"""

from genjax.core.objective import Network
from genjax.distributions.flows.bijector import Bijector, Chain, Inverse, Repeat
from genjax.distributions.flows.layers import Autoregressive, Channels, Checkerboard, Coupling, Mask
from genjax.distributions.flows.linear import LU, ActNorm, Permutation
from genjax.distributions.flows.scalar import Affine, Scalar
from genjax.distributions.flows.shape import Half, Squeeze


def coupling(net: Network, scalar: Scalar = Affine(), count: int = 4) -> Bijector:
    """Couplings of vectors: `count` times a pair of couplings of alternating halves and a linear map.

    Args:
        net: conditioner.
        scalar: function applied to each element.
        count: number of pairs of couplings.

    Returns:
        The bijector, of arrays [b, d].
    """
    pair = (Coupling(net, scalar, Channels()), Coupling(net, scalar, Channels(odd=True)), LU())
    return Chain((ActNorm(), Repeat(Chain(pair), count)))


def autoregressive(net: Network, scalar: Scalar = Affine(), count: int = 4, fast: bool = False) -> Bijector:
    """Autoregressive bijectors of vectors, the order of dimensions reversed after each.

    Args:
        net: conditioner, such as `MADE`.
        scalar: function applied to each element.
        count: number of layers.
        fast: IAF: one network pass per layer for samples, d for densities; else MAF, the opposite.

    Returns:
        The bijector, of arrays [b, d].
    """
    layer: Bijector = Autoregressive(net, scalar)
    layer = Inverse(layer) if fast else layer
    return Chain((ActNorm(), Repeat(Chain((layer, Permutation())), count)))


def glow(net: Network, scalar: Scalar = Affine(), scales: int = 2, steps: int = 4) -> Bijector:
    """Glow: at each scale squeeze, `steps` of (ActNorm, 1 x 1, coupling), factor out half of the channels.

    Args:
        net: conditioner of images, the same architecture at all scales.
        scalar: function applied by the couplings.
        scales: number of squeezes.
        steps: per scale.

    Returns:
        The bijector, of images [b, h, w, c] with h and w divisible by 2^scales.
    """
    step = Chain((ActNorm(), LU(), Coupling(net, scalar, Channels())))
    inside: Bijector = Repeat(step, steps)
    for _ in range(scales - 1):
        prior = Coupling(net, Affine(), Channels())
        inside = Chain((Repeat(step, steps), prior, Half(Squeeze(inside))))
    return Squeeze(inside)


def realnvp(net: Network, scalar: Scalar = Affine(), scales: int = 2, pairs: int = 2) -> Bijector:
    """RealNVP: at each scale checkerboard couplings, squeeze, channel couplings, factor out half of the channels.

    Args:
        net: conditioner of images, the same architecture at all scales.
        scalar: function applied by the couplings.
        scales: number of scales; the last has checkerboard couplings only.
        pairs: pairs of couplings of each kind at each scale.

    Returns:
        The bijector, of images [b, h, w, c] with h and w divisible by 2^(scales - 1).
    """

    def couplings(one: Mask, other: Mask) -> Bijector:
        both = (ActNorm(), Coupling(net, scalar, one), ActNorm(), Coupling(net, scalar, other))
        return Repeat(Chain(both), pairs)

    board = couplings(Checkerboard(), Checkerboard(odd=True))
    channels = couplings(Channels(), Channels(odd=True))
    inside = board
    for _ in range(scales - 1):
        inside = Chain((board, Squeeze(Chain((channels, Half(inside))))))
    return inside
