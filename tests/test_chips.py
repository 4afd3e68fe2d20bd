"""The table of chips against device names, and MFU by hand."""

import re

import pytest

from genjax.evaluation.chips import CHIPS, peak, utilisation

# Values of jax.devices()[0].device_kind.
KINDS = {
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H200": 989.4,
    "NVIDIA B200": 2250.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA L40": 181.0,
    "NVIDIA A10": 125.0,
    "Tesla V100-SXM2-16GB": 125.0,
    "Tesla T4": 65.0,
    "NVIDIA GeForce RTX 4090": 165.2,
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU7x": 1153.5,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_device_matches_one_chip(kind):
    assert peak(kind) == KINDS[kind] * 1e12
    assert sum(re.fullmatch(chip.kind, kind, re.IGNORECASE) is not None for chip in CHIPS) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "cpu",
        "",
        "NVIDIA",
        "NVIDIA H1000",
        "NVIDIA H200 MIG 1g.18gb",
        "NVIDIA A10G",
        "TPU v50",
        "TPU v5 litepod",
    ],
)
def test_unknown_devices_have_no_peak(kind):
    assert peak(kind) is None
    assert utilisation(1e12, 1.0, kind) is None


def test_utilisation_by_hand():
    # 6 N D for GPT-2's 124 million parameters, 480 x 1024 tokens a step of 4 s on 4 A100.
    flops = 6 * 124e6 * 480 * 1024
    assert utilisation(flops, 4.0, "NVIDIA A100-SXM4-40GB", 4) == pytest.approx(0.07326, abs=1e-5)
    once = utilisation(156e12, 1.0, "NVIDIA A100-SXM4-40GB", 1, "float32")
    assert once == pytest.approx(1.0)
    assert utilisation(156e12, 1.0, "NVIDIA A100-SXM4-40GB") == pytest.approx(0.5)
    assert utilisation(1e12, 2.0, "Tesla T4", 5, "float32") == pytest.approx(1 / (2 * 5 * 8.1))
