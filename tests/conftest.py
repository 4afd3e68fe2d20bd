"""Strict JAX: 8 virtual CPU devices, ranks never promoted silently, shapes and types checked at run time."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook

install_import_hook("genjax", "beartype.beartype")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
