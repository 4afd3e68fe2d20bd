"""One run in a work directory at a time: who is refused, who takes over, and what is left behind."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from genjax.core.errors import UserError
from genjax.training import lock as locks
from genjax.training.lock import LOCK, Lock, Owner, Timing, locked

QUICK = Timing(beat=0.02, watched=0.5, stale=100.0)
HERE = socket.gethostname()
TICKS = locks._process_start(os.getpid())


def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# name -> (owner, age of its heartbeat in s, whether the heart beats, whether it is taken over)
OWNERS = {
    "this process": (lambda: Owner(HERE, os.getpid(), TICKS, 0.0), 1e6, False, False),
    "its parent": (
        lambda: Owner(HERE, os.getppid(), locks._process_start(os.getppid()), 0.0),
        0.0,
        True,
        False,
    ),
    "alive, of unknown age": (lambda: Owner(HERE, os.getpid(), 0, 0.0), 0.0, True, False),
    "process 1, of another user or not": (lambda: Owner(HERE, 1, 0, 0.0), 0.0, False, False),
    "dead": (lambda: Owner(HERE, dead(), 5, 0.0), 0.0, False, True),
    "dead, its number is used again": (
        lambda: Owner(HERE, os.getpid(), TICKS + 1, 0.0),
        0.0,
        False,
        True,
    ),
    "elsewhere, alive": (lambda: Owner("elsewhere", 7, 5, 0.0), 0.0, True, False),
    "elsewhere, silent": (lambda: Owner("elsewhere", 7, 5, 0.0), 0.0, False, True),
    "elsewhere, silent for long": (lambda: Owner("elsewhere", 7, 5, 0.0), 1000.0, False, True),
}


@contextlib.contextmanager
def beating(path, due):
    end = threading.Event()

    def beat():
        while not end.wait(0.01):
            os.utime(path)

    thread = threading.Thread(target=beat)
    if due:
        thread.start()
    yield
    end.set()
    if due:
        thread.join()


@pytest.mark.parametrize("name", OWNERS)
def test_a_lock_of_a_living_run_is_refused_and_of_a_dead_one_taken(tmp_path, name):
    make, age, beats, free = OWNERS[name]
    owner, path = make(), tmp_path / LOCK
    text = json.dumps(dataclasses.asdict(owner))
    path.write_text(text)
    os.utime(path, (time.time() - age, time.time() - age))
    with beating(path, beats):
        if free:
            with locked(tmp_path, QUICK):
                assert json.loads(path.read_text())["pid"] == os.getpid()
            assert not path.exists()
            return
        words = f"{tmp_path} is in use by process {owner.pid} on {owner.host} since "
        with pytest.raises(UserError, match=words) as refused, locked(tmp_path, QUICK):
            pass
    assert refused.value.code == 2
    assert "\n" not in str(refused.value)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 3}', "\x00\x00"])
def test_a_damaged_lock_is_replaced(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with locked(tmp_path, QUICK):
        assert json.loads((tmp_path / LOCK).read_text())["host"] == HERE
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("before", ["", json.dumps(dataclasses.asdict(Owner(HERE, 2**22, 5, 0.0)))])
def test_of_many_at_once_one_is_let_in(tmp_path, before):
    (tmp_path / LOCK).write_text(before)
    held, refused, start = [], [], threading.Barrier(12)

    def claim():
        start.wait()
        try:
            held.append(Lock(tmp_path, QUICK))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=claim) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 11)
    held[0].release()
    Lock(tmp_path, QUICK).release()
    assert not (tmp_path / LOCK).exists()


def test_the_heart_beats_and_a_lost_lock_is_noticed(tmp_path):
    path = tmp_path / LOCK
    with locked(tmp_path, QUICK) as lock:
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock.check()
        other = json.dumps(dataclasses.asdict(Owner("elsewhere", 7, 5, 0.0)))
        path.write_text(other)
        while not lock._lost:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with pytest.raises(
            UserError, match="process 7 on elsewhere has taken it over: nothing more is saved"
        ):
            lock.check()
    assert path.read_text() == other  # not ours to remove


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, ValueError])
def test_the_lock_is_released_however_the_run_ends(tmp_path, end):
    before = signal.getsignal(signal.SIGTERM)
    kind = {signal.SIGINT: KeyboardInterrupt, ValueError: ValueError}.get(end, SystemExit)

    def run():
        with locked(tmp_path, QUICK):
            assert (tmp_path / LOCK).exists()
            if end is ValueError:
                raise ValueError
            os.kill(os.getpid(), end)
            time.sleep(5)

    with pytest.raises(kind) as raised:
        run()
    assert not (tmp_path / LOCK).exists()
    assert kind is not SystemExit or raised.value.code == 128 + end
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_processes_of_a_run_lock_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("genjax.parallel.multihost.on_first_process", lambda action: None)
    with locked(tmp_path) as lock:
        assert lock is None
    assert os.listdir(tmp_path) == []
