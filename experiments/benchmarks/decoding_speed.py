"""Decoding speed by batch size, by precision of weights and cache, and by context length."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import Array, Params
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding import Decoding
from genjax.samplers.decoding.generate import advance, start
from genjax.training.experiment import Experiment
from genjax.training.loop import prepare

from .costs import compile_costs, heading
from .timing import timed

BATCHES = (1, 32)
PRECISIONS: tuple[dict[str, Any], ...] = ({}, {"kind": "int8"}, {"weights": "bfloat16"}, {"weights": "int8"})
CONTEXTS = (128, 512, 2048)
PROMPT, TOKENS = 16, 64


@dataclasses.dataclass
class Timed:
    """One compiled setting with its timings.

    Attributes:
        prefill: (parameters, prompt [b, p]) -> decoding state after the prompt.
        decode: (parameters, state) -> state after `tokens` more tokens.
        params: parameters in the form that decoding reads.
        prompt: int32 [b, p].
        tokens: tokens per timing.
        flops: FLOPs of matrix products for one more token of all rows.
        compiling: compilation seconds of both functions.
        first: seconds to the first token's logits, by round.
        each: seconds per further token, by round.
    """

    prefill: Callable[[Params, Array], Any]
    decode: Callable[[Params, Any], Any]
    params: Params
    prompt: Array
    tokens: int
    flops: float = 0.0
    compiling: float = 0.0
    first: list[float] = dataclasses.field(default_factory=list)
    each: list[float] = dataclasses.field(default_factory=list)

    def time(self, keep: bool) -> None:
        """Runs one round; its timings are stored if `keep`."""
        started = time.perf_counter()
        state = jax.block_until_ready(self.prefill(self.params, self.prompt))
        between = time.perf_counter()
        jax.block_until_ready(self.decode(self.params, state))
        if keep:
            self.first.append(between - started)
            self.each.append((time.perf_counter() - between) / self.tokens)


def make(objective: Autoregressive, params: Params, batch: int, prompt: int, tokens: int) -> Timed:
    """Compiles greedy decoding after a random prompt.

    Args:
        objective: the model.
        params: its parameters.
        batch: number of rows.
        prompt: tokens of the prompt.
        tokens: tokens to decode after it.

    Returns:
        The setting, not timed yet.

    Raises:
        UserError: prompt and tokens exceed the model's sequence length.
    """
    max_length, key = int(np.prod(objective.shape)), jax.random.key(0)
    if prompt + tokens > max_length:
        raise UserError(
            f"{prompt} + {tokens} tokens do not fit sequences of {max_length}: use a config with longer sequences"
        )
    greedy = Decoding(temperature=0.0)
    text = jax.random.randint(key, (batch, prompt), 0, objective.values)
    count = jnp.full(batch, prompt)

    def prefill(params: Params, text: Array) -> Any:
        return start(objective.model(params, batch), text, count, max_length)

    def decode(params: Params, state: Any) -> Any:
        return advance(objective.model(params, batch), greedy, state, key, tokens)

    functions, ready = (jax.jit(prefill), jax.jit(decode)), jax.jit(objective.ready)(params)
    prefill_costs = compile_costs(functions[0], ready, text)
    decode_costs = compile_costs(functions[1], ready, functions[0](ready, text))
    return Timed(
        *functions,
        ready,
        text,
        tokens,
        decode_costs.flops / tokens,
        prefill_costs.seconds + decode_costs.seconds,
    )


def run(settings: Iterable[Timed], rounds: int) -> None:
    """Times all settings in turn, A B C A B C; the first round is discarded."""
    chosen = list(settings)
    for number in range(rounds + 1):
        for setting in chosen:
            setting.time(number > 0)


def read_bandwidth() -> float:
    """Bytes per second at which the device sums 256 MiB of float32."""
    x = jnp.ones(64 << 20)
    total = jax.jit(jnp.sum)
    once = timed(lambda: total(x))
    return x.nbytes / min(once() for _ in range(6))


def report(chosen: Experiment, rounds: int) -> None:
    """Prints a line for each batch size and each precision of weights and cache.

    Raises:
        UserError: the experiment's model is not autoregressive, or its sequences are too short.
    """
    objective = chosen.objective
    if not isinstance(objective, Autoregressive):
        raise UserError(f"--what=decode needs an autoregressive model, this is {type(objective).__name__}")
    prepared = prepare(dataclasses.replace(chosen, steps_per_call=1))
    params, settings = prepared.make_state().ema, {}
    for batch in BATCHES:
        for precision in PRECISIONS:
            name = ", ".join(f"{what} {kind}" for what, kind in precision.items()) or "float32"
            setting = dataclasses.replace(objective, **precision)
            settings[batch, name] = make(setting, params, batch, PROMPT, TOKENS)
    run(settings.values(), rounds)
    speed = read_bandwidth()
    print(heading(chosen, prepared.mesh, params))
    print(f"reading memory: {speed / 1e9:.1f} GB/s; 'read' is the fraction of it used by reading the weights")
    for (batch, name), found in settings.items():
        each, first = float(np.median(found.each)), float(np.median(found.first))
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(found.params))
        print(
            f"batch {batch:3}  {name:18} {batch / each:9.1f} tokens/s  "
            f"{1e3 * each:8.3f} ms/step  first token {1e3 * first:8.2f} ms  {size / 1e6:7.1f} MB  "
            f"read {size / each / speed:4.0%}  {found.flops / each / 1e9:8.1f} GFLOP/s  "
            f"compile {found.compiling:.1f} s"
        )


def by_context(rounds: int, window: int = 64) -> None:
    """Prints the time per token after contexts of growing length, with full attention and with a sliding window."""
    settings = {}
    for context in CONTEXTS:
        for size in (0, window):
            net = gpt2(depth=4, width=256, heads=4, window=size, places=CONTEXTS[-1] + TOKENS)
            objective = Autoregressive(net, (context + TOKENS,), 256, start=False)
            params, _ = objective.init(jax.random.key(0), {"x": jnp.zeros((1, *objective.shape), jnp.int32)})
            settings[context, size] = make(objective, params, 8, context, TOKENS)
    run(settings.values(), rounds)
    for context in CONTEXTS:
        full, near = (1e3 * float(np.median(settings[context, size].each)) for size in (0, window))
        print(
            f"context {context:5}: {full:8.3f} ms/token with full attention, {near:8.3f} with a window of {window}"
        )
