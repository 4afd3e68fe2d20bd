"""The rows of the conformance table: one small experiment for each objective."""

import dataclasses
import functools

import jax
import numpy as np
from jax.sharding import Mesh

from genjax import loop
from genjax.data import Data, Digits, GaussianMixture, Scale
from genjax.diffusion.likelihood import OdeLikelihood
from genjax.experiment import Experiment
from genjax.networks import MLP, ConvDecoder, ConvEncoder, UNet
from genjax.objectives.diffusion import Diffusion
from genjax.objectives.gan import GAN
from genjax.objectives.vae import VAE, Bernoulli
from genjax.optimizers import SGD
from genjax.samplers.ode import DDIM

DIGITS = Data(Digits(), (Scale(0, 16),))
UNIT_DIGITS = Data(Digits(), (Scale(0, 16, 0.0, 1.0),))
POINTS = Data(GaussianMixture(num=512, num_test=64), (Scale(-2, 2),))
UNET = UNet(channels=16, multipliers=(1,), blocks=1, attention=(0,), heads=2, zero_out=False)
SMALL = MLP(width=32, depth=1)


def _experiment(objective, data) -> Experiment:
    return Experiment(objective, data, SGD(learning_rate=0.03), steps=4, batch_size=16)


ROWS = {
    "diffusion-digits": _experiment(
        Diffusion(UNET, (8, 8, 1), 10, sampler=DDIM(steps=3), likelihood=OdeLikelihood(steps=3)), DIGITS
    ),
    "diffusion-points": _experiment(
        Diffusion(SMALL, (2,), sampler=DDIM(steps=3), likelihood=OdeLikelihood(steps=3)), POINTS
    ),
    "vae-digits": _experiment(
        VAE(ConvEncoder((16,)), ConvDecoder((16,)), (8, 8, 1), 4, 10, Bernoulli()), UNIT_DIGITS
    ),
    "vae-points": _experiment(VAE(SMALL, SMALL, (2,), 2), POINTS),
    "gan-digits": _experiment(
        GAN(ConvDecoder((16,), norm="none"), ConvEncoder((16,), norm="none"), (8, 8, 1), 4, 10), DIGITS
    ),
    "gan-points": _experiment(GAN(SMALL, SMALL, (2,), 2, r1=0.0), POINTS),
}


def on_one_device(experiment: Experiment) -> loop.Run:
    """An experiment made ready on the first device alone."""
    return loop.prepare(experiment, Mesh(np.array(jax.devices()[:1]), ("data",)))


@functools.cache
def make_run(name: str, mesh: str = "data:8", **changes) -> loop.Run:
    """A row made ready on a mesh, once for all tests, so that they share what it compiles.

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
    """The state of step 0, made once for all meshes and put on this one."""
    return jax.tree.map(
        jax.device_put, _start(dataclasses.replace(run.experiment, mesh="data:-1")), run.shardings
    )
