"""Costs of compiled programs against hand counts; and windows of profiled steps."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks.costs import Costs, Row, compile_costs, compute_dtype, table
from genjax.core.errors import UserError
from genjax.evaluation.chips import peak
from genjax.networks import MLP
from genjax.objectives.latent.vae import VAE
from genjax.training.profile import parse_window


def test_costs_of_a_product():
    a, b = jnp.zeros((16, 32)), jnp.zeros((32, 64))
    costs = compile_costs(jax.jit(lambda a, b: a @ b), a, b, devices=3)
    assert costs.flops == 2 * 16 * 32 * 64
    assert costs.compiled == pytest.approx(3 * costs.flops)
    assert costs.bytes >= 4 * (16 * 32 + 32 * 64 + 16 * 64)


def test_a_row_by_hand(monkeypatch):
    monkeypatch.setattr(
        "experiments.benchmarks.costs.utilisation", lambda *args: args[0] / args[1] / peak("Tesla T4")
    )
    row = Row("a step", [0.5, 0.25, 0.125], 32, Costs(13 * 10**11, 14e11, 1.5, 2 * 10**6), 1)
    twice = dataclasses.replace(row, name="two a call", seconds=[0.5], units=2)
    heads, first, second = (line.split() for line in table([row, twice], "step", "items", "bfloat16", 1))
    assert heads[0] == "ms/step"
    # 1.3 TFLOP in 0.25 s are 5.2 TFLOP/s, of 65: 8 %
    assert first == [
        "a",
        "step",
        "250.000",
        "128.0",
        "1.000",
        "1300.000",
        "1400.000",
        "5200.0",
        "8.0%",
        "1.50",
        "2.0",
    ]
    assert second == [
        "two",
        "a",
        "call",
        "500.000",
        "64.0",
        "2.000",
        "650.000",
        "-",
        "1300.0",
        "2.0%",
        "1.50",
        "2.0",
    ]


def test_dtype_of_the_networks():
    part = VAE(MLP(), MLP(), (2,))
    assert compute_dtype(part) == "float32"
    assert compute_dtype((part, dataclasses.replace(part, decoder=MLP(dtype="bfloat16")))) == "bfloat16"


@pytest.mark.parametrize("text", ["3", "5:5", "7:3", "a:b", "1:2:3", ":4"])
def test_windows_of_steps(text):
    assert parse_window("3:10") == (3, 10)
    with pytest.raises(UserError, match="FIRST:LAST"):
        parse_window(text)
