"""Cached against naive generation of WaveNet at growing receptive fields.

For each new sample, naive generation runs the network on a whole receptive field, cached generation (Paine et al. 2016,
arXiv:1611.09482) on that sample alone: with dilations 1, 2, 4, ... the receptive field R doubles with each layer, so
the naive cost grows as R log R and the cached cost as log R.

python -m experiments.decoding_speed_wavenet [--rounds=5]
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from genjax.core.types import Array, named
from genjax.networks import WaveNet
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding.generate import advance, start

from . import cli

LAYERS = (6, 8, 10)  # receptive fields of 64, 256 and 1024 samples
VALUES = 256


@dataclasses.dataclass(frozen=True)
class Timing:
    """Medians over rounds for one network.

    Attributes:
        field: receptive field in samples.
        cached: seconds per sample with ring buffers, by round.
        naive: seconds per sample by running a whole receptive field, by round.
    """

    field: int
    cached: tuple[float, ...]
    naive: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """Ratio of the medians, naive over cached."""
        return float(np.median(self.naive) / np.median(self.cached))


def generator(objective: Autoregressive, num: int, steps: int) -> Callable[[Any, Any], Array]:
    """Compiles the generation of sounds.

    Args:
        objective: the model.
        num: number of sounds.
        steps: samples of each sound.

    Returns:
        (parameters, key) -> int32 samples [num, steps].
    """

    def draw(params: Any, key: Any) -> Array:
        model = objective.model(params, num)
        now = start(model, jnp.zeros((num, 0), jnp.int32), jnp.zeros(num, jnp.int32), objective.shape[0])
        return advance(model, objective.decoding, now, named(key, "decode"), steps).tokens[:, :steps]

    return jax.jit(draw)


def measure(
    layers: Sequence[int] = LAYERS, *, rounds: int = 5, width: int = 32, num: int = 1, naive_steps: int = 16
) -> list[Timing]:
    """Times both methods in turn on the same random network; the first round compiles and is discarded.

    Args:
        layers: number of layers of each network, with dilations 1 ... 2^(layers - 1).
        rounds: number of timings.
        width: channels of the network.
        num: batch size.
        naive_steps: samples of naive generation; cached generation draws 16 times as many. The time per sample does not
            depend on its position.

    Returns:
        One timing for each network.

    Raises:
        AssertionError: the two methods draw different samples.
    """
    timings = []
    for depth in layers:
        net = WaveNet(width=width, gate=width, skip=2 * width, layers=depth, cycles=1)
        steps = {"cached": 16 * naive_steps, "naive": naive_steps}
        naive = Autoregressive(net, (max(net.receptive_field, naive_steps), 1), VALUES, cached=False)
        cached = dataclasses.replace(naive, shape=(steps["cached"], 1), cached=True)
        params, _ = naive.init(jax.random.key(0), {"x": jnp.zeros((1, *naive.shape), jnp.int32)})
        objectives = {"cached": cached, "naive": naive}
        generators = {name: generator(objective, num, steps[name]) for name, objective in objectives.items()}
        seconds: dict[str, list[float]] = {name: [] for name in generators}
        for number in range(rounds + 1):
            drawn = {}
            for name, generate in generators.items():
                started = time.perf_counter()
                drawn[name] = jax.block_until_ready(generate(params, jax.random.key(number)))
                took = time.perf_counter() - started
                seconds[name] += [took / (num * steps[name])] if number else []
            same = np.array_equal(drawn["cached"][:, :naive_steps], drawn["naive"])
            assert same, "the two methods draw different samples"
        timings.append(Timing(net.receptive_field, tuple(seconds["cached"]), tuple(seconds["naive"])))
    return timings


def run(rounds: int) -> None:
    """Prints a line for each receptive field, and the exponent of the speed-up in it."""
    timings = measure(rounds=rounds)
    for timing in timings:
        cached, naive = (1e3 * float(np.median(each)) for each in (timing.cached, timing.naive))
        print(
            f"receptive field {timing.field:5}: {cached:8.3f} ms/sample cached, {naive:9.3f} naive, "
            f"{timing.speedup:7.1f} x"
        )
    first, last = timings[0], timings[-1]
    power = np.log(last.speedup / first.speedup) / np.log(last.field / first.field)
    print(f"the speed-up grows as the receptive field to the power {power:.2f}")


if __name__ == "__main__":
    ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of timings of each setting.", lower_bound=1)
    cli.run(lambda overrides: run(ROUNDS.value), alone=True)
