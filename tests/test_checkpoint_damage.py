"""After damage, kills and full disks an intact checkpoint is left."""

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from checkpointing import assert_same, files, flip, restore, small, truncate

from genjax.core import checksums
from genjax.core.errors import UserError
from genjax.training.checkpoint import Checkpoints


@pytest.mark.parametrize("damage", [flip, truncate, os.remove, lambda path: path.write_bytes(b"")])
def test_damage_to_any_file_falls_back_to_the_previous_checkpoint(two, damage, caplog):
    everything = files(two / "2")
    assert len(everything) > 8
    with Checkpoints(two) as checkpoints:
        for path in everything:
            kept = path.read_bytes()
            caplog.clear()
            damage(path)
            step, got = checkpoints.restore(small(0))
            assert step == 1, path
            assert_same(got, small(1))
            assert [r.levelname for r in caplog.records if r.name.startswith("genjax")] == ["WARNING"], path
            path.write_bytes(kept)
        assert checkpoints.restore(small(0))[0] == 2


def test_any_flipped_bit_of_a_manifest_raises(two):
    path = two / "2" / checksums.NAME
    kept = path.read_bytes()
    for i in range(0, len(kept), 7):
        path.write_bytes(kept[:i] + bytes([kept[i] ^ 1 << i % 8]) + kept[i + 1 :])
        with pytest.raises(checksums.ChecksumError):
            checksums.read(two / "2")


def test_an_unknown_format_is_skipped(two, monkeypatch):
    monkeypatch.setattr(checksums, "FORMAT", 2)
    with pytest.raises(UserError, match="its format is 1, this version reads 2"):
        restore(two)


def test_without_an_intact_checkpoint_the_error_lists_all_faults_and_nothing_is_deleted(two):
    for step in (1, 2):
        (two / str(step) / checksums.NAME).unlink()
    before = files(two)
    with pytest.raises(
        UserError, match=r"no intact checkpoint in .*: 2: manifest.json is missing; 1: manifest"
    ):
        restore(two)
    assert files(two) == before


def test_a_requested_step_does_not_fall_back(two):
    assert restore(two, step=1)[0] == 1
    truncate(files(two / "2")[0])
    with pytest.raises(UserError, match="2: "):
        restore(two, step=2)
    with pytest.raises(UserError, match=r"3: manifest.json is missing"):
        restore(two, step=3)


def test_a_missing_directory(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.latest() is None
        with pytest.raises(UserError, match="no checkpoint in"):
            checkpoints.restore(small(0))
    assert not (tmp_path / "none").exists()


def run(program, *arguments, **options):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(checksums.__file__).parents[2]),
    }
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_kill_during_a_save(two):
    endless = run(
        """
        import sys, jax.numpy as jnp, numpy as np
        from genjax.training.checkpoint import Checkpoints
        noise = np.random.default_rng(0).normal(size=2**21).astype(np.float32)
        with Checkpoints(sys.argv[1]) as checkpoints:
            for step in range(3, 10**6):
                checkpoints.save(step, {"w": jnp.asarray(noise + step), "n": jnp.int32(step)})
        """,
        two,
    )
    # When step 5 is being saved, 3 and 4 are complete.
    deadline = time.monotonic() + 60
    while not list(two.glob("[5-9]*.orbax-checkpoint-tmp*")):
        assert endless.poll() is None, endless.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    endless.send_signal(signal.SIGKILL)
    endless.communicate()
    assert list(two.glob("*.orbax-checkpoint-tmp*"))
    step, got = restore(two, {"w": jnp.zeros(2**21), "n": jnp.int32(0)})
    assert step >= 4
    noise = np.random.default_rng(0).normal(size=2**21).astype(np.float32)
    np.testing.assert_array_equal(got["w"], jnp.asarray(noise + step))
    assert int(got["n"]) == step


FULL = """
    import resource, signal, sys, jax.numpy as jnp, numpy as np
    from genjax.training.checkpoint import Checkpoints
    from genjax.core.errors import UserError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
    noise = lambda n: {"w": jnp.asarray(np.random.default_rng(0).normal(size=n), jnp.float32)}
    try:
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(3, noise(6))
            checkpoints.save(4, noise(2**20))
            if sys.argv[2] == "wait": checkpoints.wait()
            if sys.argv[2] == "save": checkpoints.save(5, noise(6))
            if sys.argv[2] == "raise": raise KeyError("the loop's own")
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyError as error:
        sys.exit(f"{error}")
    """


@pytest.mark.parametrize("then", ["wait", "save", "close", "raise"])
def test_a_full_disk_is_one_line_and_a_failure(two, then):
    process = run(FULL, two, then)
    _, text = process.communicate(timeout=60)
    line = f"file too large: checkpoint 4 in {two} was not saved; the last good one is 3"
    assert process.returncode == 1
    expected = [line, '"the loop\'s own"'] if then == "raise" else [f"error: {line}"]
    assert [
        given.removeprefix("WARNING:genjax.training.checkpoint:") for given in text.splitlines()
    ] == expected
    assert restore(two, {"w": jnp.zeros(6)})[0] == 3
    assert sorted(os.listdir(two)) == ["2", "3"]


def test_too_little_space_raises_before_the_save(two, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    with (
        Checkpoints(two) as checkpoints,
        pytest.raises(UserError, match=r"no space left on device: checkpoint 3 .*is 2"),
    ):
        checkpoints.save(3, small(3))


def test_a_failed_save_is_raised_once_and_the_next_one_works(two, monkeypatch, caplog):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    noise = {"w": jnp.asarray(np.random.default_rng(0).normal(size=2**18), jnp.float32)}
    with Checkpoints(two) as checkpoints:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limit[1]))
            checkpoints.save(3, noise)
            with pytest.raises(UserError, match=r"checkpoint 3 .* last good one is 2"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, previous)
        checkpoints.save(3, noise)
        checkpoints.wait()
        assert checkpoints.latest() == 3
        assert_same(checkpoints.restore(noise)[1], noise)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_manifest_that_cannot_be_written_fails_the_save(two, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with Checkpoints(two) as checkpoints:
        monkeypatch.setattr(checksums, "write", fail)
        checkpoints.save(3, small(3))
        with pytest.raises(UserError, match=r"no space left on device: checkpoint 3 .* last good one is 2"):
            checkpoints.wait()
        assert checkpoints.restore(small(0))[0] == 2
