"""The cases of the speed comparison between training steps of genjax and of plain PyTorch.

A case is an experiment and its twin: the same layers, widths, batch, loss and optimizer, the same kind of noise drawn
inside the step, an EMA of the parameters. Batches are random numbers in memory: times do not depend on them.
The twin's optimizer is PyTorch's fused one, its images are channels_last; on GPUs its networks are compiled and run in
bfloat16 under autocast, as ours do by their `dtype`.
"""

import contextlib
import copy
import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import twin_networks as networks
from torch import Tensor, nn

from genjax.core.objective import Objective
from genjax.data import Data, Table
from genjax.data.source import Kind
from genjax.distributions.flows import models
from genjax.distributions.flows.bijector import Chain, Repeat
from genjax.distributions.flows.layers import Channels, Coupling
from genjax.distributions.flows.linear import ActNorm
from genjax.distributions.likelihoods import Bernoulli
from genjax.networks import MADE, DCGANDiscriminator, DCGANGenerator, DiT, FeedForward, PixelCNN, UNet
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.flow import Flow
from genjax.objectives.latent.vae import VAE
from genjax.training.experiment import Experiment
from genjax.training.optimizers import Adam, AdamW, Cosine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = "bfloat16" if DEVICE == "cuda" else "float32"


@dataclasses.dataclass(frozen=True)
class Noise:
    """A source of random numbers: integers below `levels`, or standard normal ones."""

    shape: tuple[int, ...]
    kind: Kind
    levels: int = 0
    num: int = 2048
    classes: int = 0
    splits: tuple[str, ...] = ("train", "test")

    @property
    def dtype(self) -> str:
        return "int32" if self.levels else "float32"

    def load(self, split: str) -> Table:
        rng = np.random.default_rng(0)
        shape = (self.num, *self.shape)
        x = rng.integers(self.levels, size=shape) if self.levels else rng.normal(size=shape)
        return Table({"x": x.astype(self.dtype)})


class Twin:
    """Parameter groups (players) updated alternately, each by the gradient of its own loss.

    Attributes:
        players: by name, in the order of their updates.
    """

    def __init__(
        self,
        players: Mapping[str, nn.Module],
        losses: Callable[[Mapping[str, nn.Module]], Mapping[str, Callable[[Tensor], Tensor]]],
        batch: Tensor,
        clip: float = 0.0,
        **adam: Any,
    ) -> None:
        images = batch.ndim == 4
        form = {"memory_format": torch.channels_last} if images else {}
        self.players = {name: player.to(DEVICE, **form) for name, player in players.items()}
        run = {name: torch.compile(p) if DEVICE == "cuda" else p for name, p in self.players.items()}
        self.losses, self.batch, self.clip = losses(run), batch.to(DEVICE, **form), clip
        self.params = {name: list(player.parameters()) for name, player in self.players.items()}
        adam = {"lr": 1e-3, "fused": True, **adam}
        self.optimizers = {name: torch.optim.Adam(params, **adam) for name, params in self.params.items()}
        self.averages = copy.deepcopy(self.params)

    @property
    def parameters(self) -> int:
        """Number of parameters of all players."""
        return sum(p.numel() for params in self.params.values() for p in params)

    def step(self) -> Tensor:
        """One update of each player, and of the EMA."""
        for name, params in self.params.items():
            half = torch.autocast(DEVICE, torch.bfloat16) if DEVICE == "cuda" else contextlib.nullcontext()
            with half:
                loss = self.losses[name](self.batch)
            for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
                param.grad = grad
            if self.clip:
                nn.utils.clip_grad_norm_(params, self.clip)
            self.optimizers[name].step()
        with torch.no_grad():
            for name, average in self.averages.items():
                torch._foreach_lerp_(average, self.params[name], 1e-3)
        return loss


class NanoGPT(Twin):
    """nanoGPT's model, optimizer and clipping, without EMA, as in its train.py."""

    def __init__(self, folder: str, sizes: tuple[int, ...], values: int, batch: Tensor) -> None:
        sys.path.insert(0, folder)
        from model import GPT, GPTConfig

        depth, heads, width, context = sizes
        torch.manual_seed(1337)
        with contextlib.redirect_stdout(None):
            net = GPT(GPTConfig(context, values, depth, heads, width, 0.0, False)).to(DEVICE)
            self.optimizer = net.configure_optimizers(0.1, 1e-3, (0.9, 0.99), DEVICE)
        self.net, self.batch = net, batch.to(DEVICE)
        self.run = torch.compile(net) if DEVICE == "cuda" else net
        self.params = {"net": list(net.parameters())}

    def step(self) -> Tensor:
        """Loss, gradients, clipping and update on the batch in memory."""
        return self.update(self.batch[:, :-1], self.batch[:, 1:].contiguous())

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        """The same on given inputs x and targets y."""
        half = torch.autocast(DEVICE, torch.bfloat16) if DEVICE == "cuda" else contextlib.nullcontext()
        with half:
            loss = self.run(x, y)[1]
        loss.backward()
        nn.utils.clip_grad_norm_(self.params["net"], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        experiment: ours.
        twin: folder with nanoGPT -> the PyTorch side.
        less: number of parameters that ours has in excess of theirs; see the case.
        unit: name of the unit of throughput, and the number of units per example.
    """

    experiment: Experiment
    twin: Callable[[str], Twin]
    less: int = 0
    unit: tuple[str, int] = ("images", 1)


def _experiment(
    objective: Objective, source: Noise, batch: int, clip: float = 0.0, calls: int = 1, **adam: Any
) -> Experiment:
    players = {name: Adam(clip=clip, **adam) for name in objective.players()}
    return Experiment(objective, Data(source), players, batch_size=batch, steps_per_call=calls)


def _rows(source: Noise, batch: int) -> Tensor:
    """A batch in PyTorch's layout: channels before space."""
    x = torch.from_numpy(dataclasses.replace(source, num=batch).load("train").arrays["x"])
    return x.permute(0, 3, 1, 2) if x.ndim == 4 and not source.levels else x.squeeze(-1) if x.ndim == 4 else x


def _noisy(net: nn.Module, x: Tensor) -> Tensor:
    """DDPM's loss: the squared error of the noise, at a time drawn for each example."""
    t, eps = torch.rand(len(x), device=x.device), torch.randn_like(x)
    log_alpha = (-0.25 * 19.9 * t**2 - 0.05 * t)[:, None, None, None]
    given = log_alpha.exp() * x + (-torch.expm1(2.0 * log_alpha)).sqrt() * eps
    return F.mse_loss(net(given, t), eps)


def _diffusion(net: Any, twin: Callable[[], nn.Module], shape: tuple[int, ...], batch: int) -> Case:
    source = Noise(shape, "image")
    losses = lambda run: {"net": lambda x: _noisy(run["net"], x)}
    make = lambda _: Twin({"net": twin()}, losses, _rows(source, batch), clip=1.0)
    return Case(_experiment(Diffusion(net, shape), source, batch, clip=1.0), make)


def unet(
    channels: int = 64,
    multipliers: tuple[int, ...] = (1, 1),
    blocks: int = 1,
    attention: tuple[int, ...] = (1,),
    heads: int = 4,
    shape: tuple[int, ...] = (28, 28, 1),
    batch: int = 64,
) -> Case:
    """DDPM's U-Net."""
    sizes = (channels, multipliers, blocks, attention, heads)
    net = UNet(*sizes, modulation="add", dtype=DTYPE)
    return _diffusion(net, lambda: networks.UNet(*sizes, shape[-1]), shape, batch)


def dit(
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    shape: tuple[int, ...] = (32, 32, 4),
    batch: int = 128,
) -> Case:
    """DiT with patches of 2 x 2 and no labels: DiT-B/2 on the latents of 256 x 256 pixels."""
    net = DiT(width, depth, heads, dtype=DTYPE)
    return _diffusion(net, lambda: networks.DiT(width, depth, heads, 2, shape[-1], shape[0]), shape, batch)


def _gan_losses(run: Mapping[str, nn.Module], latent: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Losses of the non-saturating GAN."""
    noise = lambda x: torch.randn(len(x), latent, device=x.device)

    def discriminator_loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            fake = run["generator"](noise(x))
        return F.softplus(-run["discriminator"](x)).mean() + F.softplus(run["discriminator"](fake)).mean()

    generator_loss = lambda x: F.softplus(-run["discriminator"](run["generator"](noise(x)))).mean()
    return {"discriminator": discriminator_loss, "generator": generator_loss}


def dcgan(channels: tuple[int, int] = (128, 64), batch: int = 64, classic: bool = False) -> Case:
    """Updates of both players. `classic`: the published generator, with 4 x 4 kernels instead of our 3 x 3."""
    shape, latent = (28, 28, 1), 64
    maker = networks.ClassicGenerator if classic else networks.Generator
    gan = GAN(
        DCGANGenerator(channels), DCGANDiscriminator(channels[::-1]), shape, latent=latent, penalties=()
    )
    source, (a, b) = Noise(shape, "image"), channels
    players = lambda: {
        "discriminator": networks.Discriminator(channels[::-1]),
        "generator": maker(latent, channels),
    }
    make = lambda _: Twin(
        players(), lambda run: _gan_losses(run, latent), _rows(source, batch), betas=(0.5, 0.999)
    )
    return Case(_experiment(gan, source, batch, b1=0.5), make, less=(9 - 16) * (a * b + b) if classic else 0)


def pixelcnn(width: int = 64, depth: int = 6, hidden: int = 128, levels: int = 256, batch: int = 32) -> Case:
    """Gated PixelCNN on 28 x 28 grey levels."""
    shape = (28, 28, 1)
    net = PixelCNN(width, depth, 3, hidden, levels)
    source = Noise(shape, "image", levels)
    losses = lambda run: {"net": lambda x: F.cross_entropy(run["net"](x), x.long())}

    def make(_: str) -> Twin:
        player = networks.PixelCNN(width, depth, hidden, levels).to(memory_format=torch.channels_last)
        return Twin({"net": player}, losses, _rows(source, batch))

    return Case(_experiment(Autoregressive(net, shape, levels), source, batch), make)


def vae(size: int = 784, width: int = 400, latent: int = 20, batch: int = 128, calls: int = 1) -> Case:
    """The VAE of Kingma & Welling: one hidden layer in encoder and decoder, Bernoulli likelihood."""
    source = Noise((size,), "points")
    objective = VAE(FeedForward((width,)), FeedForward((width,)), (size,), latent, likelihood=Bernoulli())
    players = lambda: nn.ModuleList(
        [
            networks.feed_forward((size, width, 2 * latent), nn.Tanh),
            networks.feed_forward((latent, width, size), nn.Tanh),
        ]
    )

    def elbo(net: nn.ModuleList, x: Tensor) -> Tensor:
        mean, log_std = net[0](x).chunk(2, dim=1)
        logits = net[1](mean + log_std.exp() * torch.randn_like(mean))
        distance = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean**2 + (2.0 * log_std).exp() - 1.0 - 2.0 * log_std).sum()
        return (distance + kl) / len(x)

    losses = lambda run: {"vae": lambda x: elbo(run["vae"], x)}
    return Case(
        _experiment(objective, source, batch, calls=calls),
        lambda _: Twin({"vae": players()}, losses, _rows(source, batch)),
    )


def flow(
    kind: str = "coupling",
    size: int = 784,
    count: int = 4,
    width: int = 512,
    batch: int = 128,
    calls: int = 1,
) -> Case:
    """RealNVP's couplings of vectors, `count` pairs; or MAF with `count` layers."""
    source = Noise((size,), "points")
    net = FeedForward((width, width), "relu")
    pair = Chain((Coupling(net, mask=Channels()), Coupling(net, mask=Channels(odd=True))))
    bijector = (
        Chain((ActNorm(), Repeat(pair, count)))
        if kind == "coupling"
        else models.autoregressive(MADE(width, depth=1), count=count)
    )
    losses = lambda run: {"flow": lambda x: -run["flow"](x).mean() / size}
    make = lambda _: Twin({"flow": networks.FlowTwin(kind, size, count, width)}, losses, _rows(source, batch))
    return Case(_experiment(Flow(bijector, (size,)), source, batch, calls=calls), make)


def gpt(sizes: tuple[int, ...], values: int = 65, batch: int = 12, position: str = "learned") -> Case:
    """GPT-2 without biases, as nanoGPT trains it; norms have biases in ours, none in theirs."""
    depth, heads, width, context = sizes
    source = Noise((context + 1,), "text", values, num=max(64, batch))
    net = gpt2(depth, width, heads, bias=False, position=position, unroll=depth, dtype=DTYPE)
    objective = Autoregressive(net, source.shape, values, start=False)
    optimizer = AdamW(learning_rate=1e-3, b2=0.99, weight_decay=0.1, schedule=Cosine(100, 0.1), clip=1.0)
    experiment = Experiment(objective, Data(source), optimizer, batch_size=batch)
    rows = _rows(source, batch).long()
    less = (2 * depth + 1) * width - (context * width if position != "learned" else 0)
    return Case(experiment, lambda folder: NanoGPT(folder, sizes, values, rows), less, ("tokens", context))


CASES: dict[str, Callable[[], Case]] = {
    "unet": unet,
    "dcgan": dcgan,
    "dcgan-classic": lambda: dcgan(classic=True),
    "pixelcnn": pixelcnn,
    "vae": vae,
    "vae-10": lambda: vae(calls=10),
    "flow": flow,
    "maf": lambda: flow("maf", count=3, width=1024),
    "flow-toy": lambda: flow(size=2, width=64, batch=256),
    "flow-toy-20": lambda: flow(size=2, width=64, batch=256, calls=20),
    "gpt-tiny": lambda: gpt((4, 4, 128, 64)),
    "gpt-short": lambda: gpt((6, 6, 384, 64)),
    "gpt-baby": lambda: gpt((6, 6, 384, 256)),
    "gpt2-124m": lambda: gpt((12, 12, 768, 1024), values=50304, batch=16),
    "dit-b2": dit,
    "unet-cifar": lambda: unet(128, (1, 2, 2, 2), 2, (1,), 1, (32, 32, 3), 128),
}
GROUPS = {
    "cpu": ("unet", "gpt-short", "gpt-baby", "dcgan", "pixelcnn", "vae", "flow", "flow-toy"),
    "gpu": ("gpt2-124m", "dit-b2", "unet-cifar"),
}
__all__ = ["CASES", "DEVICE", "DTYPE", "GROUPS", "Case", "NanoGPT", "Twin"]
