"""Peak FLOP/s of accelerators, and model FLOPs utilisation (MFU).

    MFU = (FLOPs of the model's products) / (seconds x devices x peak FLOP/s of a device)

(Chowdhery et al. 2022, arXiv:2204.02311, appendix B). Peaks are the vendors' for dense products with float32
accumulation, in 10^12 FLOP/s, of one JAX device at its boost clock:

    half     bfloat16, or float16 where the chip has no bfloat16
    single   float32 at XLA's default precision: TF32 on NVIDIA's Ampere and later, one pass of bfloat16 on TPUs; full
             float32 on older chips

Sources: NVIDIA's data sheets (H100, H200, B200, GB200, GH200, A100, A10, L4, L40, L40S, V100, T4: half of what they
give "with sparsity") and white papers of the Ampere, Ada and Blackwell RTX architectures, appendices A (GeForce, RTX
A6000, RTX 6000 Ada); AMD's data sheet of MI300X; docs.cloud.google.com/tpu/docs for TPUs. TPU v2, v3 and 7x have two
JAX devices (cores) per chip; the peak of a device is half of the chip's.
"""

import re
from dataclasses import dataclass
from typing import Literal

Dtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Chip:
    """One kind of device.

    Attributes:
        kind: regular expression that matches the full `device_kind`, ignoring case.
        half: 10^12 FLOP/s in bfloat16, or float16.
        single: 10^12 FLOP/s in float32.
    """

    kind: str
    half: float
    single: float


CHIPS = (
    Chip("NVIDIA GB200.*", 2500.0, 1250.0),
    Chip("NVIDIA B200.*", 2250.0, 1125.0),
    Chip("NVIDIA H[12]00 NVL", 835.0, 417.5),
    Chip("NVIDIA (H200|GH200.*)", 989.4, 494.7),
    Chip("NVIDIA H100 PCIe", 756.0, 378.0),
    Chip("NVIDIA H100( 80GB HBM3|-SXM.*)", 989.4, 494.7),
    Chip("NVIDIA A100.*", 312.0, 156.0),
    Chip("NVIDIA A10", 125.0, 62.5),
    Chip("NVIDIA L4", 121.0, 60.0),
    Chip("NVIDIA L40S", 362.0, 183.0),
    Chip("NVIDIA L40", 181.0, 90.5),
    Chip("NVIDIA RTX A6000", 154.8, 77.4),
    Chip("NVIDIA RTX 6000 Ada Generation", 364.2, 182.1),
    Chip("NVIDIA GeForce RTX 3090", 71.0, 35.6),
    Chip("NVIDIA GeForce RTX 4090", 165.2, 82.6),
    Chip("NVIDIA GeForce RTX 5090", 209.5, 104.8),
    Chip("(NVIDIA |Tesla )?V100-SXM.*", 125.0, 15.7),
    Chip("(NVIDIA |Tesla )?V100-PCIE.*", 112.0, 14.0),
    Chip("(NVIDIA |Tesla )?T4", 65.0, 8.1),
    Chip("AMD Instinct MI300X.*", 1307.4, 653.7),
    Chip("TPU v2", 22.5, 22.5),
    Chip("TPU v3", 61.5, 61.5),
    Chip("TPU v4", 275.0, 275.0),
    Chip("TPU v5( lite|e)", 197.0, 197.0),
    Chip("TPU v5p?", 459.0, 459.0),
    Chip("TPU v6( lite|e)", 918.0, 918.0),
    Chip("TPU ?7x?", 1153.5, 1153.5),
)


def peak(device_kind: str, dtype: Dtype = "bfloat16") -> float | None:
    """Peak FLOP/s of a device.

    Args:
        device_kind: attribute of a `jax.Device`.
        dtype: compute dtype of the model.

    Returns:
        FLOP/s of one device, or None if unknown: CPUs, partitions of a chip ("MIG"), and chips not in the table.
    """
    if "MIG" in device_kind:
        return None
    for chip in CHIPS:
        if re.fullmatch(chip.kind, device_kind, re.IGNORECASE):
            return 1e12 * (chip.half if dtype == "bfloat16" else chip.single)
    return None


def utilisation(
    flops: float, seconds: float, device_kind: str, devices: int = 1, dtype: Dtype = "bfloat16"
) -> float | None:
    """The MFU of a timed computation.

    Args:
        flops: FLOPs over all devices, see `flops.count_flops`.
        seconds: measured time.
        device_kind: attribute of one `jax.Device`.
        devices: number of devices.
        dtype: compute dtype of the model.

    Returns:
        MFU in 0 ... 1, or None if the peak is unknown.
    """
    best = peak(device_kind, dtype)
    return None if best is None else flops / (seconds * devices * best)
