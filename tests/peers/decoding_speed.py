"""Tokens per second of our decoding loop versus `transformers.generate`: equal random weights, same machine.

    pip install -r requirements-peers.txt
    python tests/peers/decoding_speed.py [--size 10M|124M] [--batch 1] [--prompt 16] [--tokens 128] [--rounds 5]

GPT-2 architecture, greedy, no stop token; the first round compiles and is not counted. The tokens of both are compared.
Times are medians over rounds of whole calls, prompts included. `--weights` and `--kind` are the dtypes of our weights
and cache.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={CORES}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from genjax.networks import huggingface
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding import Decoding

SIZES = {"10M": (6, 6, 384, 256, 65), "124M": (12, 12, 768, 1024, 50257)}


def theirs(size: str) -> transformers.GPT2LMHeadModel:
    """Their model with random weights, scaled so that greedy choices are not near ties."""
    depth, heads, width, places, values = SIZES[size]
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=values, n_positions=places, n_embd=width, n_layer=depth, n_head=heads
    )
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    net = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        net.transformer.wte.weight.mul_(4.0)
    return net


def main() -> None:
    """Prints a line per library, the ratio, and the share of equal tokens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="10M")
    parser.add_argument("--kind", default="float32")
    parser.add_argument("--weights", default="float32")
    for name, default in (("batch", 1), ("prompt", 16), ("tokens", 128), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    flags = parser.parse_args()
    peer = theirs(flags.size)
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        net, params, _ = huggingface.read(Path(folder))
    values, length = SIZES[flags.size][-1], flags.prompt + flags.tokens
    kept = {"kind": flags.kind, "weights": flags.weights}
    objective = Autoregressive(
        net, (length,), values, start=False, decoding=Decoding(temperature=0.0), **kept
    )
    weights = jax.jit(objective.ready)({"net": jax.tree.map(jnp.asarray, params)})
    prompt = np.random.default_rng(0).integers(values, size=(flags.batch, flags.prompt))

    @jax.jit
    def ours(params: dict, prompt: jax.Array) -> jax.Array:
        return objective.generate(params, jax.random.key(0), flags.batch, {"prompt": prompt}).tokens

    @torch.inference_mode()
    def generate() -> np.ndarray:
        given = torch.from_numpy(prompt)
        mask = torch.ones_like(given)
        return peer.generate(
            given,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=flags.tokens,
            max_new_tokens=flags.tokens,
        ).numpy()

    given = jnp.asarray(prompt, jnp.int32)
    sides = {"genjax": lambda: np.asarray(ours(weights, given)), "transformers": generate}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(flags.rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            tokens = side()
            if number:
                seconds[name].append(time.perf_counter() - start)
            elif name == "genjax":
                first = tokens
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, value in medians.items():
        print(
            f"{name:13} {flags.batch * flags.tokens / value:9.1f} tokens/s  {1e3 * value / flags.tokens:8.3f} ms/step"
        )
    ratio = medians["transformers"] / medians["genjax"]
    print(
        f"genjax / transformers: {ratio:.2f} x the tokens per second; {(first == tokens).mean():.1%} of tokens equal"
    )


if __name__ == "__main__":
    main()
