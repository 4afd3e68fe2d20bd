"""Multi-process coordination: failure detection, common stop, messages. Real processes: `test_several_processes`."""

import socket
import threading
import time

import pytest

from genjax.core.errors import UserError
from genjax.parallel.hosts.client import Unreachable, join
from genjax.parallel.hosts.failure_detector import FailureDetector
from genjax.parallel.hosts.messages import Connection
from genjax.parallel.hosts.rendezvous import LOST, USER_ERROR, Rendezvous
from genjax.parallel.hosts.tcp_proxy import open_proxy


def detector_after(*processes):
    """A failure detector with a limit of 10 s just after a heartbeat (step, due) of each process."""
    detector = FailureDetector(10.0)
    for process, (step, due) in enumerate(processes):
        detector.add(process)
        detector.heartbeat(process, step, due)
    return detector


def advance(detector, seconds, *heartbeats):
    """Advances the time in steps of 1 s, with heartbeats of all processes but silent ones (None)."""
    for _ in range(seconds):
        for process, heartbeat in enumerate(heartbeats):
            if heartbeat is not None:
                detector.heartbeat(process, *heartbeat)
        if lost := detector.advance(1.0):
            return [process for process, _ in lost]
    return []


def test_a_silent_process_is_lost_in_any_state():
    for due in (False, True):
        assert advance(detector_after((3, due), (3, due)), 9, (3, due), None) == []
        assert advance(detector_after((3, due), (3, due)), 12, (3, due), None) == [1]


def test_the_process_at_the_earliest_step_is_the_stuck_one():
    detector = detector_after((3, True), (3, True), (3, True))
    assert advance(detector, 4, (4, True), (3, True), (4, True)) == []
    assert advance(detector, 9, (5, True), (3, True), (5, True)) == [1]


def test_compilation_checkpoints_and_evaluation_may_take_any_time():
    detector = detector_after((3, True), (3, False), (3, True))
    assert advance(detector, 100, (4, True), (3, False), (4, True)) == []
    assert advance(detector, 100, (3, True), (3, False), (4, True)) == [], (
        "a process that waits for it is not stuck"
    )
    assert advance(detector, 9, (4, True), (3, True), (4, True)) == [], (
        "the time counts from when the step is due"
    )
    assert advance(detector, 9, (4, True), (3, True), (4, True)) == [1]


def test_processes_that_advance_or_are_done_are_not_lost():
    detector = detector_after((0, True), (0, True))
    for step in range(1, 30):
        assert advance(detector, 9, (step, True), (step, True)) == []
    detector.remove(1)
    assert advance(detector, 50, (30, False), None) == []


class Group:
    """A rendezvous and clients in threads, whose exits are recorded."""

    def __init__(self, count, limit=60.0, present=None):
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.rendezvous, self.ends = Rendezvous(listener, count, limit), {}
        self.clients, self.errors = {}, {}
        threads = [
            threading.Thread(target=self.join, args=(index, count, limit))
            for index in (range(count) if present is None else present)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self):
        for thread in (self.rendezvous, *self.clients.values()):
            thread._gone = True
        for thread in (*self.clients.values(), self.rendezvous):
            thread.close()

    def join(self, index, count, limit):
        quit = lambda code, line: self.ends.setdefault(index, (code, line))
        try:
            self.clients[index], _ = join(self.address, index, count, limit, quit=quit, signals=False)
        except UserError as error:
            self.errors[index] = error

    def wait_for_ends(self, count, seconds=8.0):
        until = time.monotonic() + seconds
        while len(self.ends) < count and time.monotonic() < until:
            time.sleep(0.02)
        return self.ends


@pytest.fixture
def group(monkeypatch):
    """Makes groups with short heartbeat intervals, and closes them."""
    monkeypatch.setattr("genjax.parallel.hosts.rendezvous.HEARTBEAT", 0.1)
    monkeypatch.setattr("genjax.parallel.hosts.client.HEARTBEAT", 0.1)
    made = []

    def make(*args, **options):
        made.append(Group(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def cut(client):
    """Closes the connection as the kernel does for a killed process."""
    client._quit = lambda code, line: None
    client._connection._socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("killed", [1, 2])
def test_a_closed_connection_ends_the_other_processes_at_once(killed, group):
    run, start = group(3), time.monotonic()
    cut(run.clients[killed])
    ends = run.wait_for_ends(2)
    assert time.monotonic() - start < 5.0
    assert {code for code, _ in ends.values()} == {LOST}
    assert set(ends) == {0, 1, 2} - {killed}
    for _, line in ends.values():
        assert line.startswith(f"process {killed} of 3 on ")
        assert "died: the same command resumes from the latest checkpoint" in line
        assert "\n" not in line


def test_after_a_signal_all_stop_at_the_step_after_the_furthest(group):
    run = group(3)
    for index, step in enumerate((4, 6, 5)):
        assert not run.clients[index].reached(step)
    run.clients[2]._handle_signal(15)
    stops = {}

    def loop(index, step):
        while not run.clients[index].reached(step):
            step += 1
            time.sleep(0.01)
        stops[index] = step

    threads = [threading.Thread(target=loop, args=(i, step)) for i, step in ((0, 5), (1, 7), (2, 6))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert len(set(stops.values())) == 1, stops
    assert stops[0] >= 7
    assert {client.signal for client in run.clients.values()} == {15}
    finish = [threading.Thread(target=m.finish, args=(143,)) for m in run.clients.values()]
    for thread in finish:
        thread.start()
    for thread in finish:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in finish)
    assert run.ends == {}


def test_broadcast_waits_for_all_and_returns_the_value_of_process_0(group):
    run, found = group(3), {}

    def broadcast(index):
        for call in range(2):
            found[call, index] = run.clients[index].broadcast(
                {"from": index, "call": call, "x": float("nan")}
            )

    threads = [threading.Thread(target=broadcast, args=(index,)) for index in range(3)]
    for thread in threads[:2]:
        thread.start()
    time.sleep(0.2)
    assert found == {}
    threads[2].start()
    for thread in threads:
        thread.join(5.0)
    assert [(value["from"], value["call"]) for _, value in sorted(found.items())] == [(0, 0)] * 3 + [
        (0, 1)
    ] * 3
    assert all(value["x"] != value["x"] for value in found.values())


def test_a_signal_outside_the_loop_ends_all_at_once(group):
    run = group(2)
    run.clients[0].reached(3)
    run.clients[0].leave_loop()
    run.clients[1]._handle_signal(15)
    assert run.wait_for_ends(2) == {0: (143, ""), 1: (143, "")}


def test_a_process_that_is_done_early_waits_and_is_not_lost(group):
    run, done = group(2, limit=0.5), []
    early = threading.Thread(target=lambda: done.append(run.clients[1].finish(0)))
    early.start()
    time.sleep(0.9)
    assert not done
    run.clients[0].finish(0)
    early.join(5.0)
    assert done == [None]
    assert run.ends == {}


def test_a_user_error_on_one_process_ends_all_with_its_message(monkeypatch, group):
    monkeypatch.setattr("genjax.parallel.hosts.rendezvous.GRACE", 0.1)
    run = group(2)
    run.clients[1].fail(USER_ERROR, "no file x")
    assert run.wait_for_ends(2)[0][0] == USER_ERROR
    assert run.ends[0][1].endswith("ended: no file x")


def test_missing_processes_are_named_and_extra_ones_refused(group):
    run = group(3, limit=0.4, present=(0, 2))
    for error in run.errors.values():
        assert isinstance(error, Unreachable)
        assert str(error) == "process 1 of 3 did not connect within 0 s"
    run = group(2, present=(0, 0, 1))
    assert "process 0 is connected already" in str(run.errors[0])
    run.join(1, 5, 1.0)
    assert "was started with 5 processes, process 0 with 2" in str(run.errors[1])


def test_an_unreachable_coordinator_is_reported_in_time():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(Unreachable, match=r"cannot be reached at 127.0.0.1:\d+ within 0 s"):
            join(unused.getsockname(), 1, 2, 0.4)
    assert time.monotonic() - start < 5.0
    assert Unreachable.code == LOST


def test_the_tcp_proxy_forwards_both_ways_and_outlives_the_far_end():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = open_proxy(*server.getsockname()).split(":")
        with socket.create_connection((host, int(port))) as near:
            far, _ = server.accept()
            near.sendall(b"question")
            assert far.recv(100) == b"question"
            far.sendall(b"answer")
            assert near.recv(100) == b"answer"
            far.close()
            near.settimeout(0.5)
            with pytest.raises(TimeoutError):
                near.recv(100)


def test_receive_returns_complete_messages_only():
    left, right = socket.socketpair(socket.AF_UNIX)
    right.settimeout(5.0)
    connection = Connection.__new__(Connection)
    connection._socket, connection._buffer, connection._lock = right, b"", threading.Lock()
    left.sendall(b'{"a": 1}\n{"b"')
    assert connection.receive() == [{"a": 1}]
    left.sendall(b": 2}\n")
    assert connection.receive() == [{"b": 2}]
    left.sendall(b"GET / HTTP/1.1\r\n")
    assert connection.receive() is None, "another protocol"
    left.close()
    right.close()
