"""Samples per second of our DDIM versus diffusers' DDIMPipeline loop: equal networks, same machine, alternating.

    pip install -r requirements-peers.txt
    python tests/peers/sampling_speed.py [--rounds 5] [--batch 64] [--steps 20]

Both U-Nets have 28 x 28 x 1 inputs, channels (32, 64, 64), one residual block per down level, attention at 7 x 7;
their numbers of parameters are printed. Times are medians over rounds of one whole batch of samples; the first round
compiles and is not counted.
"""

import argparse
import os
import time

CORES = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={CORES}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch

from genjax.evaluation.evaluate import count_params
from genjax.evaluation.sampling import compile_sampler
from genjax.networks import UNet
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.parallel.mesh import make_mesh
from genjax.samplers.ode import DDIM

SHAPE = (28, 28, 1)


def ours(batch: int, steps: int):
    """A function (round number) -> a batch of samples, and the number of parameters."""
    net = UNet(channels=32, multipliers=(1, 2, 2), blocks=1, attention=(2,), zero_out=False)
    objective = Diffusion(net, SHAPE, sampler=DDIM(steps=steps))
    params, _ = objective.init(jax.random.key(0), {"x": jnp.zeros((2, *SHAPE))})
    draw = compile_sampler(objective, make_mesh("data:-1"), batch)
    return lambda number: jax.block_until_ready(draw(params, {}, jax.random.key(number), None)), count_params(
        params
    )


def theirs(batch: int, steps: int):
    """The same with diffusers: the calls of DDIMPipeline, without its conversion to images."""
    torch.set_num_threads(CORES)
    net = diffusers.UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        norm_num_groups=8,
        attention_head_dim=16,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    ).eval()
    scheduler = diffusers.DDIMScheduler(1000)
    scheduler.set_timesteps(steps)

    def draw(number: int) -> torch.Tensor:
        with torch.inference_mode():
            x = torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(number))
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t).sample, t, x, eta=0.0).prev_sample
            return x

    return draw, sum(p.numel() for p in net.parameters())


def main() -> None:
    """Prints a line per library, and the ratio."""
    parser = argparse.ArgumentParser()
    for name, default in (("rounds", 5), ("batch", 64), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    flags = parser.parse_args()
    sides = {"genjax": ours(flags.batch, flags.steps), "diffusers": theirs(flags.batch, flags.steps)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(flags.rounds + 1):
        for name, (draw, _) in sides.items():
            start = time.perf_counter()
            draw(number)
            if number:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, (_, params) in sides.items():
        print(f"{name:10} {params:>10,} parameters  {flags.batch / medians[name]:8.1f} samples/s")
    print(f"genjax / diffusers: {medians['diffusers'] / medians['genjax']:.2f} x the samples per second")


if __name__ == "__main__":
    main()
