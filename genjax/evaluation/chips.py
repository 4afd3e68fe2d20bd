"""What chips could do at best, and the part of it that was used: model FLOPs utilisation, MFU.

    MFU = (FLOPs of the model's products) / (seconds x devices x peak FLOP/s of a device)

(Chowdhery et al. 2022, arXiv:2204.02311, appendix B). Peaks are the makers' for dense products with float32 sums, in
10^12 operations a second, of one JAX device at its boost clock:

    half     of bfloat16, or float16 where the chip has no bfloat16
    single   of float32 as XLA multiplies it unless told otherwise: rounded to TF32 on NVIDIA's Ampere and later, in
             one pass of bfloat16 on TPUs; in full on older chips

Sources: NVIDIA's data sheets (H100, H200, B200, GB200, GH200, A100, A10, L4, L40, L40S, V100, T4: half of what they
give "with sparsity") and white papers of the Ampere, Ada and Blackwell RTX architectures, appendices A (GeForce, RTX
A6000, RTX 6000 Ada); AMD's data sheet of MI300X; docs.cloud.google.com/tpu/docs for TPUs. Of TPU v2, v3 and 7x, whose
chips have two cores that are a JAX device each, a device has half a chip's.
"""

import re
from dataclasses import dataclass
from typing import Literal

Dtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Chip:
    """One kind of device.

    Attributes:
        kind: regular expression for the whole of `device_kind`, any case.
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
    """Looks a device up.

    Args:
        device_kind: of a `jax.Device`.
        dtype: that the model computes in.

    Returns:
        FLOP/s of one device, or None where it is not known: CPUs, parts of a chip ("MIG"), and whatever is not in the
        table.
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
    """The MFU of work that was timed.

    Args:
        flops: of all devices together, as `flops.count_flops` counts them.
        seconds: that it took.
        device_kind: of one of them.
        devices: their number.
        dtype: that the model computes in.

    Returns:
        From 0 to 1, or None where the peak is not known.
    """
    best = peak(device_kind, dtype)
    return None if best is None else flops / (seconds * devices * best)
