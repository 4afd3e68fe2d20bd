"""Networks of genjax in plain PyTorch: same layers, widths and numbers of parameters; [b, c, h, w].

Initial values differ, which does not affect times.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def waves(t: Tensor, features: int) -> Tensor:
    """Sinusoidal features [b, features] of times t in [0, 1]."""
    half = features // 2
    frequencies = 1000.0 * torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
    angles = t[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at least 4 channels in each of at most 32 groups."""
    most = max(1, min(32, channels // 4))
    return nn.GroupNorm(next(g for g in range(most, 0, -1) if channels % g == 0), channels)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, or divides it by the stride."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=(size - 1) // 2)


class ResBlock(nn.Module):
    """Norm, activation, convolution, twice, with time added between, and a skip."""

    def __init__(self, inputs: int, outputs: int, embedded: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs)
        self.time = nn.Linear(embedded, outputs, bias=False)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) + self.time(F.silu(e))[:, :, None, None]
        return (self.skip(x) + self.conv2(F.silu(h))) * 0.5**0.5


class SpaceAttention(nn.Module):
    """Residual self-attention over all pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, norm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        rows = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(rows).view(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return (x + self.out(y).transpose(1, 2).reshape(b, c, h, w)) * 0.5**0.5


class UNet(nn.Module):
    """`networks.UNet(channels, multipliers, blocks, attention, heads, modulation="add")`."""

    def __init__(
        self,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        heads: int,
        image: int,
    ) -> None:
        super().__init__()
        self.channels, self.multipliers, self.blocks, self.attention = (
            channels,
            multipliers,
            blocks,
            attention,
        )
        wide = 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.first = conv(image, channels)

        def stage(level: int, inputs: int, attends: bool) -> nn.ModuleList:
            here = channels * multipliers[level]
            attend = SpaceAttention(here, heads) if attends else nn.Identity()
            return nn.ModuleList([ResBlock(inputs, here, wide), attend])

        passed, now, last = [channels], channels, len(multipliers) - 1
        self.down, self.narrow = nn.ModuleList(), nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(stage(level, now, level in attention))
                now = channels * multiplier
                passed.append(now)
            if level < last:
                self.narrow.append(conv(now, now, stride=2))
                passed.append(now)
        self.middle = nn.ModuleList([*stage(last, now, bool(attention)), ResBlock(now, now, wide)])
        self.up, self.widen = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(last + 1)):
            for _ in range(blocks + 1):
                self.up.append(stage(level, now + passed.pop(), level in attention))
                now = channels * multipliers[level]
            if level:
                self.widen.append(conv(now, now))
        self.last = nn.Sequential(norm(now), nn.SiLU(), conv(now, image))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        e = self.time(waves(t, self.channels))
        h = self.first(x)
        passed, down, up = [h], iter(self.down), iter(self.up)
        for level in range(len(self.multipliers)):
            for _ in range(self.blocks):
                block, attend = next(down)
                h = attend(block(h, e))
                passed.append(h)
            if level < len(self.narrow):
                h = self.narrow[level](h)
                passed.append(h)
        block, attend, another = self.middle
        h = another(attend(block(h, e)), e)
        for level in range(len(self.multipliers)):
            for _ in range(self.blocks + 1):
                block, attend = next(up)
                h = attend(block(torch.cat([h, passed.pop()], dim=1), e))
            if level < len(self.widen):
                h = self.widen[level](F.interpolate(h, scale_factor=2))
        return self.last(h)


class Generator(nn.Module):
    """`networks.DCGANGenerator`: nearest-neighbour upsampling and a convolution."""

    def __init__(self, latent: int, channels: tuple[int, ...], image: int = 1, size: int = 7) -> None:
        super().__init__()
        self.shape, after = (channels[0], size, size), (*channels[1:], image)
        self.first = nn.Linear(latent, channels[0] * size * size)
        self.levels = nn.ModuleList(
            nn.Sequential(norm(a), nn.ReLU(), nn.Upsample(scale_factor=2), conv(a, b))
            for a, b in zip(channels, after, strict=True)
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z).view(-1, *self.shape)
        for level in self.levels:
            h = level(h)
        return h.tanh()


class Discriminator(nn.Module):
    """`networks.DCGANDiscriminator`: 4 x 4 convolutions of stride 2."""

    def __init__(self, channels: tuple[int, ...], image: int = 1, size: int = 28) -> None:
        super().__init__()
        layers, before = [], image
        for level, after in enumerate(channels):
            layers += [conv(before, after, 4, 2), *([norm(after)] if level else []), nn.LeakyReLU(0.2)]
            before, size = after, size // 2
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * size * size, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class ClassicGenerator(Generator):
    """The published form: batch normalisation and transposed 4 x 4 convolutions (Radford et al. 2016)."""

    def __init__(self, latent: int, channels: tuple[int, ...], image: int = 1, size: int = 7) -> None:
        super().__init__(latent, channels, image, size)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1))
            for a, b in zip(channels, (*channels[1:], image), strict=True)
        )


def gate(z: Tensor) -> Tensor:
    """tanh of one half of the channels times the sigmoid of the other."""
    signal, opening = z.chunk(2, dim=1)
    return signal.tanh() * opening.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks of a gated PixelCNN; the last one's vertical stack is unused."""

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.vertical, self.across = nn.Conv2d(width, 2 * width, 3), nn.Conv2d(width, 2 * width, (1, 3))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.residual = None if last else nn.Conv2d(width, width, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.vertical(F.pad(v, (1, 1, 2, 0)))
        above = F.pad(self.link(a), (0, 0, 1, 0))[:, :, :-1]
        z = gate(self.across(F.pad(h, (2, 0))) + above)
        return (v, h, z) if self.residual is None else (gate(a), h + self.residual(z), z)


class PixelCNN(nn.Module):
    """`networks.PixelCNN(width, depth, 3, hidden, levels)`: integers [b, h, w] to logits [b, levels, h, w]."""

    def __init__(self, width: int, depth: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.levels, self.read = levels, nn.Conv2d(2, width, 1)
        self.layers = nn.ModuleList(GatedLayer(width, index + 1 == depth) for index in range(depth))
        self.skips = nn.ModuleList(nn.Conv2d(width, hidden, 1) for _ in range(depth))
        self.hide, self.out = nn.Conv2d(hidden, hidden, 1), nn.Conv2d(hidden, levels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = 2.0 * x.flatten(1) / (self.levels - 1.0) - 1.0
        start = torch.zeros_like(flat)
        start[:, 0] = 1.0
        late = F.pad(flat[:, :-1], (1, 0))
        v = h = self.read(torch.stack([late, start], dim=1).view(len(x), 2, *x.shape[1:]))
        total = 0.0
        for layer, skip in zip(self.layers, self.skips, strict=True):
            v, h, z = layer(v, h)
            total = total + skip(z)
        return self.out(F.relu(self.hide(F.relu(total / len(self.layers) ** 0.5))))


def feed_forward(sizes: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """`networks.FeedForward`."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class MaskedLinear(nn.Linear):
    """An affine map whose matrix is multiplied by a mask."""

    def __init__(self, before: Tensor, after: Tensor, strict: bool = False) -> None:
        super().__init__(len(before), len(after))
        seen = after[:, None] > before[None] if strict else after[:, None] >= before[None]
        self.register_buffer("mask", seen.float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """`networks.MADE(width, depth=1)` with two numbers for each input."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        places, units = torch.arange(inputs) + 1, 1 + torch.arange(width) % max(inputs - 1, 1)
        self.first, self.a, self.b = (MaskedLinear(d, units) for d in (places, units, units))
        self.last = MaskedLinear(units, places.repeat_interleave(2), strict=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = h + self.b(F.silu(self.a(F.silu(h))))
        return self.last(F.silu(h)).view(*x.shape, 2)


def affine(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """x exp(s) + t and the log-determinant, s = 3 tanh(raw / 3)."""
    s = 3.0 * torch.tanh(theta[..., 0] / 3.0)
    return x * s.exp() + theta[..., 1], s.sum(1)


class FlowTwin(nn.Module):
    """log p(x) [b] of affine couplings of alternating halves ("coupling"), or of MAF, after a scale and a shift."""

    def __init__(self, kind: str, size: int, count: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.log_scale, self.shift = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))
        half = size // 2
        make = lambda: (
            feed_forward((half, width, width, 2 * half), nn.ReLU) if kind == "coupling" else MADE(size, width)
        )
        self.nets = nn.ModuleList(make() for _ in range(2 * count if kind == "coupling" else count))

    def forward(self, x: Tensor) -> Tensor:
        z, log_det = x * self.log_scale.exp() + self.shift, self.log_scale.sum()
        for index, net in enumerate(self.nets):
            if self.kind == "coupling":
                a, b = z.chunk(2, dim=1)
                kept, other = (b, a) if index % 2 else (a, b)
                other, more = affine(other, net(kept).view(*other.shape, 2))
                z = torch.cat([other, kept] if index % 2 else [kept, other], dim=1)
            else:
                z, more = affine(z, net(z))
                z = z.flip(1)
            log_det = log_det + more
        return (-0.5 * z**2 - 0.5 * math.log(2.0 * math.pi)).sum(1) + log_det


class DiTBlock(nn.Module):
    """A block with adaLN-zero (Peebles & Xie 2022)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulate, self.qkv = nn.Linear(width, 6 * width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        b, n, c = x.shape
        m1, s1, g1, m2, s2, g2 = self.modulate(F.silu(e))[:, None].chunk(6, dim=2)
        rows = self.norm(x) * (1 + s1) + m1
        q, k, v = self.qkv(rows).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        x = x + g1 * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return x + g2 * self.mlp(self.norm(x) * (1 + s2) + m2)


class DiT(nn.Module):
    """`networks.DiT` without labels, on [b, c, h, w]."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, image: int, size: int) -> None:
        super().__init__()
        self.patch = patch
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(image * patch**2, width)
        self.register_buffer("places", torch.randn((size // patch) ** 2, width))
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulate, self.last = nn.Linear(width, 2 * width), nn.Linear(width, image * patch**2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        e = self.time(waves(t, 256))
        h = self.first(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            h = block(h, e)
        m, s = self.modulate(F.silu(e))[:, None].chunk(2, dim=2)
        h = self.last(self.norm(h) * (1 + s) + m).transpose(1, 2)
        side = x.shape[2] // self.patch
        return F.pixel_shuffle(h.reshape(len(x), -1, side, side), self.patch)
