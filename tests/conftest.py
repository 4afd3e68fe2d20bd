"""Strict JAX: 8 virtual CPU devices, no implicit rank promotion, shapes and types checked at run time."""

import os

import quick

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} {quick.XLA_FLAGS} --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook

install_import_hook("genjax", "strict.checked")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update(
    "jax_traceback_in_locations_limit", 0
)  # locations of operations cost time when they are lowered


@pytest.fixture(autouse=True)
def _compile_quickly(request):
    """Disables costly compiler optimizations, which change the speed of a program but not its results.

    Most tests compile for seconds and run for milliseconds; those marked `optimised` keep the optimizations.
    """
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimised") is None)


def pytest_addoption(parser):
    parser.addoption("--config", help="Path of a config: run the conformance table on it.")
    parser.addoption(
        "--fuzz", type=int, default=60, help="Number of damaged files of each format that readers try."
    )
    parser.addoption("--page", help="An HTML page to check in a browser.")


def pytest_configure(config):
    path = config.getoption("--config")
    if path:
        import dataclasses

        import rows

        from genjax.training import experiment

        own = dataclasses.replace(experiment.load(path), batch_size=16)
        rows.ROWS.clear()
        rows.ROWS[path] = own


@pytest.fixture
def two(tmp_path):
    """A directory with the checkpoints 1 and 2."""
    from checkpointing import small

    from genjax.training.checkpoint import Checkpoints

    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, small(step))
    return tmp_path / "checkpoints"


def pytest_collection_finish(session):
    """Ends the run if groups are lost, as each process would then build the shared fixtures of a group again."""
    if vars(session.config.option).get("loadgroup"):
        lost = [
            item.nodeid
            for item in session.items
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid
        ]
        if lost:
            pytest.exit(
                f"pytest-xdist does not group the tests under this pytest {pytest.__version__}: {lost[0]}", 4
            )
