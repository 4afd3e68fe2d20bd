"""The rows of the conformance table: one small experiment for each objective."""

import dataclasses
import functools

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.adversarial.augment import Adaptive
from genjax.adversarial.conditioning import Auxiliary, Projection
from genjax.adversarial.image_pool import ImagePool
from genjax.adversarial.losses import Hinge, LeastSquares
from genjax.adversarial.path_length import PathLength
from genjax.adversarial.penalties import R1, Lazy
from genjax.adversarial.spectral import SpectralNorm
from genjax.conditioning.labels import Labels
from genjax.data import Data, DigitOutlines, Digits, GaussianMixture, Lines, Scale
from genjax.diffusion.coupling import MinibatchOT
from genjax.diffusion.discrete import Absorbing
from genjax.diffusion.interpolants import ODE
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import V
from genjax.diffusion.process import VP
from genjax.distributions.elbo import DReG
from genjax.distributions.flows import models
from genjax.distributions.flows.bijector import Chain
from genjax.distributions.flows.dequantize import Variational
from genjax.distributions.flows.layers import Checkerboard, Coupling
from genjax.distributions.flows.scalar import Spline
from genjax.distributions.flows.shape import Logit
from genjax.distributions.outputs import LogisticMixture
from genjax.distributions.priors import VampPrior
from genjax.networks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    Ladder,
    Monotone,
    PatchGAN,
    PixelCNN,
    PixelCNNPP,
    ResNet,
    ResNetGenerator,
    StyleDiscriminator,
    StyleMapping,
    StyleSynthesis,
    TokenTransformer,
    UNet,
    UNetGenerator,
)
from genjax.networks.convolutional.perceptual import RandomFeatures
from genjax.networks.transformers.experts import Mixture
from genjax.networks.vector_quantizers import Codebook, MovingCodebook, Residual
from genjax.objectives.adversarial.aae import AAE
from genjax.objectives.adversarial.bigan import BiGAN
from genjax.objectives.adversarial.cyclegan import CycleGAN
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.adversarial.pix2pix import Pix2Pix
from genjax.objectives.adversarial.stylegan import StyleGAN
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.diffusion.consistency import Consistency, Doubling
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.distillation import Teacher
from genjax.objectives.diffusion.improved_ddpm import ImprovedDDPM
from genjax.objectives.diffusion.interpolant import Interpolant
from genjax.objectives.diffusion.mean_flow import MeanFlow
from genjax.objectives.diffusion.progressive import Progressive
from genjax.objectives.diffusion.reflow import Reflow
from genjax.objectives.diffusion.score_matching import SlicedScoreMatching
from genjax.objectives.diffusion.token_diffusion import TokenDiffusion
from genjax.objectives.diffusion.vdm import VDM
from genjax.objectives.flow import Flow
from genjax.objectives.latent.ladder import LadderVAE
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vae import VAE, Bernoulli
from genjax.objectives.latent.vqgan import VQGAN
from genjax.objectives.latent.vqvae import VQVAE
from genjax.objectives.latent.vqvae2 import VQVAE2
from genjax.objectives.lora import LoRA
from genjax.samplers.langevin import AnnealedLangevin
from genjax.samplers.ode import DDIM
from genjax.samplers.sde import Ancestral
from genjax.samplers.tokens import TokenAncestral
from genjax.training import loop
from genjax.training.experiment import Experiment
from genjax.training.optimizers import SGD
from genjax.training.pretrained import Pretrained

DIGITS = Data(Digits(), (Scale(0, 16),))
UNIT_DIGITS = Data(Digits(), (Scale(0, 16, 0.0, 1.0),))
NAMES = Data(Lines(length=32, packed=True))
OUTLINES = Data(DigitOutlines(size=8), (Scale(0, 16),))
POINTS = Data(GaussianMixture(num=512, num_test=64), (Scale(-2, 2),))
UNET = UNet(channels=16, multipliers=(1,), blocks=1, attention=(), zero_out=False)
SMALL = MLP(width=32, depth=1)


@dataclasses.dataclass(frozen=True)
class Untrained(Pretrained):
    """An untrained model in place of a checkpoint: its parameters are those of `init`."""

    workdir: str = ""

    def load(self, objective, key, batch):
        return objective.init(key, batch)


CODED = VQVAE(SMALL, SMALL, (2,), (3,), MovingCodebook(16, 4))
TEACHER = Teacher(Diffusion(SMALL, (2,), predict=V()), Untrained())


def _experiment(objective, data) -> Experiment:
    return Experiment(objective, data, SGD(learning_rate=0.03), steps=4, batch_size=16)


ROWS = {
    "diffusion-digits": _experiment(
        Diffusion(UNET, (8, 8, 1), Labels(10, 0.1), sampler=DDIM(steps=3), likelihood=OdeLikelihood(steps=3)),
        DIGITS,
    ),
    "diffusion-points": _experiment(
        Diffusion(SMALL, (2,), sampler=DDIM(steps=3), likelihood=OdeLikelihood(steps=3)), POINTS
    ),
    "vae-digits": _experiment(
        VAE(ConvEncoder((16,)), ConvDecoder((16,)), (8, 8, 1), 4, Labels(10), Bernoulli()), UNIT_DIGITS
    ),
    "vae-points": _experiment(VAE(SMALL, SMALL, (2,), 2), POINTS),
    "flow-points": _experiment(
        Flow(models.coupling(MLP(width=32, depth=1, zero_out=True), Spline(), count=2), (2,)), POINTS
    ),
    "flow-digits": _experiment(
        Flow(
            Chain((Logit(), models.glow(ResNet(width=16, depth=1), steps=2))),
            (8, 8, 1),
            condition=Labels(10),
            levels=17,
            dequantize=Variational(Coupling(ResNet(width=16, depth=1), mask=Checkerboard())),
        ),
        Data(Digits()),
    ),
    "gan-digits": _experiment(
        GAN(
            ConvDecoder((16,), norm="none"),
            ConvEncoder((16,), norm="none"),
            (8, 8, 1),
            4,
            Labels(10),
            penalties=(Lazy(R1(1.0), 2),),
            augment=Adaptive(target=0.0, speed=0.2),
            spectral=SpectralNorm(),
            conditioning=Projection(),
        ),
        DIGITS,
    ),
    "gan-points": _experiment(
        GAN(SMALL, SMALL, (2,), 2, Labels(8), Hinge(), (), conditioning=Auxiliary()), POINTS
    ),
    "bigan-points": _experiment(
        BiGAN(SMALL, SMALL, SMALL, (2,), 2, Labels(8), game=LeastSquares(), penalties=(), every=2), POINTS
    ),
    "aae-points": _experiment(AAE(SMALL, SMALL, SMALL, (2,), 2, penalties=()), POINTS),
    "stylegan-digits": _experiment(
        StyleGAN(
            GAN(
                StyleSynthesis((8, 8)),
                StyleDiscriminator((8, 8), 16),
                (8, 8, 1),
                16,
                Labels(10),
                conditioning=Projection(),
            ),
            StyleMapping(16, 2),
            path_length=PathLength(every=2),
        ),
        DIGITS,
    ),
    "pix2pix-outlines": _experiment(
        Pix2Pix(UNetGenerator((8, 16), dropout=0.3), PatchGAN((8, 16)), (8, 16, 1)), OUTLINES
    ),
    "cyclegan-outlines": _experiment(
        CycleGAN(ResNetGenerator((8, 16), 1), PatchGAN((8, 16)), (8, 16, 1), history=ImagePool(24)), OUTLINES
    ),
    "score-matching-points": _experiment(
        SlicedScoreMatching(
            SMALL, (2,), sampler=AnnealedLangevin(steps=3, inner=2), likelihood=OdeLikelihood(steps=3)
        ),
        POINTS,
    ),
    "interpolant-points": _experiment(
        Interpolant(
            SMALL,
            (2,),
            coupling=MinibatchOT(),
            sampler=ODE(steps=3),
            likelihood=OdeLikelihood(steps=3, low=1e-3, high=0.999, power=1.0),
        ),
        POINTS,
    ),
    "tokens-digits": _experiment(
        TokenDiffusion(
            SMALL,
            (8, 8, 1),
            Absorbing(17),
            condition=Labels(10, 0.1),
            sampler=TokenAncestral(steps=3),
            draws=2,
        ),
        Data(Digits()),
    ),
    "vdm-points": _experiment(
        VDM(SMALL, (2,), schedule=Monotone(-5.0, 4.0, width=8), times=4, sampler=Ancestral(steps=3)), POINTS
    ),
    "improved-ddpm-points": _experiment(
        ImprovedDDPM(SMALL, (2,), steps=4, importance=True, sampler=Ancestral(steps=3)), POINTS
    ),
    "consistency-points": _experiment(
        Consistency(SMALL, (2,), process=VP(), low=0.02, curriculum=Doubling(4, 8, 2), huber=0.1), POINTS
    ),
    "autoregressive-digits": _experiment(
        Autoregressive(PixelCNN(width=8, depth=2, hidden=32, levels=17), (8, 8, 1), 17, condition=Labels(10)),
        Data(Digits()),
    ),
    "pixels-digits": _experiment(
        Autoregressive(
            PixelCNNPP(width=8, blocks=1, scales=2, dropout=0.2, levels=17),
            (8, 8, 1),
            17,
            LogisticMixture(2),
            condition=Labels(10),
        ),
        Data(Digits()),
    ),
    "autoregressive-packed": _experiment(
        Autoregressive(TokenTransformer(width=16, depth=1, heads=2, causal=True), (32,), NAMES.levels), NAMES
    ),
    "experts-digits": _experiment(
        Autoregressive(
            TokenTransformer(16, 2, 2, causal=True, experts=Mixture(4, 2)),
            (8, 8, 1),
            17,
            condition=Labels(10),
        ),
        Data(Digits()),
    ),
    "lora-points": _experiment(LoRA(Diffusion(SMALL, (2,), sampler=DDIM(steps=3)), Untrained()), POINTS),
    "lora-gan-points": _experiment(
        LoRA(GAN(SMALL, SMALL, (2,), 2, penalties=()), Untrained(), rank=4), POINTS
    ),
    "vae-vamp-points": _experiment(
        VAE(SMALL, SMALL, (2,), 2, prior=VampPrior(4), bound=DReG(3), samples=3), POINTS
    ),
    "ladder-digits": dataclasses.replace(
        _experiment(LadderVAE(Ladder(8, 2, (1, 1)), (8, 8, 1), Labels(10)), DIGITS),
        optimizer=SGD(learning_rate=1e-3),
    ),
    "vqvae-points": _experiment(dataclasses.replace(CODED, quantizer=Residual(Codebook(16, 4))), POINTS),
    "vqvae2-points": _experiment(
        VQVAE2(*[SMALL] * 5, (2,), (4,), (2,), 8, MovingCodebook(16, 4), MovingCodebook(16, 3)), POINTS
    ),
    "vqgan-points": _experiment(VQGAN(CODED, SMALL, (3, 1), RandomFeatures(SMALL), start=1), POINTS),
    "latent-points": _experiment(
        Latent(
            VAE(SMALL, SMALL, (2,), 3),
            Untrained(),
            Diffusion(SMALL, (3,), sampler=DDIM(steps=3), likelihood=OdeLikelihood(steps=3)),
        ),
        POINTS,
    ),
    "progressive-points": _experiment(Progressive(TEACHER, first=4, last=2, every=2), POINTS),
    "reflow-points": _experiment(Reflow(SMALL, TEACHER, DDIM(steps=3)), POINTS),
    "mean-flow-points": _experiment(MeanFlow(SMALL, (2,)), POINTS),
}

# Left to `./launch/local.sh test -m slow tests/test_objectives.py`, so that the default suite stays short: it keeps
# rows with points, with one player and with two.
SLOW = {
    "diffusion-digits",
    "flow-points",
    "flow-digits",
    "gan-digits",
    "stylegan-digits",
    "pix2pix-outlines",
    "cyclegan-outlines",
    "vae-digits",
    "autoregressive-digits",
    "pixels-digits",
    "autoregressive-packed",
    "experts-digits",
    "lora-points",
    "lora-gan-points",
    "bigan-points",
    "aae-points",
    "score-matching-points",
    "interpolant-points",
    "tokens-digits",
    "vdm-points",
    "improved-ddpm-points",
    "consistency-points",
    "vae-vamp-points",
    "ladder-digits",
    "vqvae-points",
    "vqvae2-points",
    "vqgan-points",
    "latent-points",
    "progressive-points",
    "reflow-points",
    "mean-flow-points",
}


def on_one_device(experiment: Experiment) -> loop.Run:
    """An experiment prepared on the first device alone."""
    return loop.prepare(experiment, Mesh(np.array(jax.devices()[:1]), ("data",)))


@functools.cache
def make_run(name: str, mesh: str = "data:8", **changes) -> loop.Run:
    """A row prepared on a mesh, cached for all tests, so that they share its compiled functions.

    Args:
        name: of the row.
        mesh: as in the experiment; "one" is the first device alone.
        **changes: of the experiment's fields.

    Returns:
        The run.
    """
    experiment = dataclasses.replace(ROWS[name], **changes)
    if mesh == "one":
        return on_one_device(experiment)
    return loop.prepare(dataclasses.replace(experiment, mesh=mesh))


@functools.cache
def _start(experiment: Experiment):
    return jax.device_get(on_one_device(experiment).make_state())


def start(run: loop.Run):
    """The state of step 0, initialised once for all meshes and placed on this one."""
    return jax.tree.map(
        jax.device_put, _start(dataclasses.replace(run.experiment, mesh="data:-1")), run.shardings
    )
