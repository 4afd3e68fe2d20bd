"""Several processes: who is lost, when all stop. Real processes: `test_several_processes`."""

import socket
import threading
import time

import pytest

from genjax.core.errors import UserError
from genjax.parallel.hosts.client import Unreachable, join
from genjax.parallel.hosts.failure_detector import Judge
from genjax.parallel.hosts.messages import Wire
from genjax.parallel.hosts.rendezvous import LOST, MISTAKE, Hub
from genjax.parallel.hosts.tcp_proxy import relay


def judged(*processes):
    """A judge with a limit of 10 s who has just heard of all: (step, due) each."""
    judge = Judge(10.0)
    for process, (step, due) in enumerate(processes):
        judge.joined(process)
        judge.heard(process, step, due)
    return judge


def advance(judge, seconds, *pulses):
    """Lets time pass by the second with pulses of all but the silent (None)."""
    for _ in range(seconds):
        for process, pulse in enumerate(pulses):
            if pulse is not None:
                judge.heard(process, *pulse)
        if lost := judge.passed(1.0):
            return [process for process, _ in lost]
    return []


def test_a_silent_process_is_lost_whatever_it_was_doing():
    for due in (False, True):
        assert advance(judged((3, due), (3, due)), 9, (3, due), None) == []
        assert advance(judged((3, due), (3, due)), 12, (3, due), None) == [1]


def test_the_process_at_the_earliest_step_is_the_stuck_one():
    judge = judged((3, True), (3, True), (3, True))
    assert advance(judge, 4, (4, True), (3, True), (4, True)) == []
    assert advance(judge, 9, (5, True), (3, True), (5, True)) == [1]


def test_compiling_saving_and_drawing_may_take_as_long_as_they_like():
    judge = judged((3, True), (3, False), (3, True))
    assert advance(judge, 100, (4, True), (3, False), (4, True)) == []
    assert advance(judge, 100, (3, True), (3, False), (4, True)) == [], "who waits for it is not stuck"
    assert advance(judge, 9, (4, True), (3, True), (4, True)) == [], "its time begins when the step is due"
    assert advance(judge, 9, (4, True), (3, True), (4, True)) == [1]


def test_processes_that_go_on_or_are_done_are_not_lost():
    judge = judged((0, True), (0, True))
    for step in range(1, 30):
        assert advance(judge, 9, (step, True), (step, True)) == []
    judge.left(1)
    assert advance(judge, 50, (30, False), None) == []


class Group:
    """A hub and members in threads, whose ends are noted."""

    def __init__(self, count, limit=60.0, come=None):
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.hub, self.ends = Hub(listener, count, limit), {}
        self.members, self.errors = {}, {}
        threads = [
            threading.Thread(target=self.come, args=(index, count, limit))
            for index in (range(count) if come is None else come)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self):
        for thread in (self.hub, *self.members.values()):
            thread._gone = True
        for thread in (*self.members.values(), self.hub):
            thread.close()

    def come(self, index, count, limit):
        quit = lambda code, line: self.ends.setdefault(index, (code, line))
        try:
            self.members[index], _ = join(self.address, index, count, limit, quit=quit, signals=False)
        except UserError as error:
            self.errors[index] = error

    def wait_for_ends(self, count, seconds=8.0):
        until = time.monotonic() + seconds
        while len(self.ends) < count and time.monotonic() < until:
            time.sleep(0.02)
        return self.ends


@pytest.fixture
def group(monkeypatch):
    """Makes groups whose pulse is quick, and closes them."""
    monkeypatch.setattr("genjax.parallel.hosts.rendezvous.PULSE", 0.1)
    monkeypatch.setattr("genjax.parallel.hosts.client.PULSE", 0.1)
    made = []

    def make(*args, **options):
        made.append(Group(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def cut(member):
    """What the kernel does for a process that is killed."""
    member._quit = lambda code, line: None
    member._wire._socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("killed", [1, 2])
def test_a_connection_that_ends_ends_the_others_at_once(killed, group):
    run, began = group(3), time.monotonic()
    cut(run.members[killed])
    ends = run.wait_for_ends(2)
    assert time.monotonic() - began < 5.0
    assert {code for code, _ in ends.values()} == {LOST}
    assert set(ends) == {0, 1, 2} - {killed}
    for _, line in ends.values():
        assert line.startswith(f"process {killed} of 3 on ")
        assert "died: the same command goes on" in line
        assert "\n" not in line


def test_after_a_signal_all_stop_after_the_step_of_the_furthest(group):
    run = group(3)
    for index, step in enumerate((4, 6, 5)):
        assert not run.members[index].reached(step)
    run.members[2]._signal_came(15)
    stops = {}

    def walk(index, step):
        while not run.members[index].reached(step):
            step += 1
            time.sleep(0.01)
        stops[index] = step

    threads = [threading.Thread(target=walk, args=(i, step)) for i, step in ((0, 5), (1, 7), (2, 6))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert len(set(stops.values())) == 1, stops
    assert stops[0] >= 7
    assert {member.signal for member in run.members.values()} == {15}
    finish = [threading.Thread(target=m.finish, args=(143,)) for m in run.members.values()]
    for thread in finish:
        thread.start()
    for thread in finish:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in finish)
    assert run.ends == {}


def test_all_wait_for_the_last_and_have_the_value_of_process_0(group):
    run, found = group(3), {}

    def meet(index):
        for turn in range(2):
            found[turn, index] = run.members[index].meet({"from": index, "turn": turn, "x": float("nan")})

    threads = [threading.Thread(target=meet, args=(index,)) for index in range(3)]
    for thread in threads[:2]:
        thread.start()
    time.sleep(0.2)
    assert found == {}
    threads[2].start()
    for thread in threads:
        thread.join(5.0)
    assert [(value["from"], value["turn"]) for _, value in sorted(found.items())] == [(0, 0)] * 3 + [
        (0, 1)
    ] * 3
    assert all(value["x"] != value["x"] for value in found.values())


def test_a_signal_outside_the_loop_ends_all_at_once(group):
    run = group(2)
    run.members[0].reached(3)
    run.members[0].outside()
    run.members[1]._signal_came(15)
    assert run.wait_for_ends(2) == {0: (143, ""), 1: (143, "")}


def test_who_is_done_early_waits_and_alarms_nobody(group):
    run, done = group(2, limit=0.5), []
    early = threading.Thread(target=lambda: done.append(run.members[1].finish(0)))
    early.start()
    time.sleep(0.9)
    assert not done
    run.members[0].finish(0)
    early.join(5.0)
    assert done == [None]
    assert run.ends == {}


def test_a_mistake_on_one_process_ends_all_with_its_words(monkeypatch, group):
    monkeypatch.setattr("genjax.parallel.hosts.rendezvous.GRACE", 0.1)
    run = group(2)
    run.members[1].fail(MISTAKE, "no file x")
    assert run.wait_for_ends(2)[0][0] == MISTAKE
    assert run.ends[0][1].endswith("ended: no file x")


def test_who_does_not_come_is_named_and_who_does_not_belong_is_refused(group):
    run = group(3, limit=0.4, come=(0, 2))
    for error in run.errors.values():
        assert isinstance(error, Unreachable)
        assert str(error) == "process 1 of 3 did not come within 0 s"
    run = group(2, come=(0, 0, 1))
    assert "process 0 is there already" in str(run.errors[0])
    run.come(1, 5, 1.0)
    assert "says that there are 5 processes, process 0 says 2" in str(run.errors[1])


def test_an_address_where_nobody_is_is_given_up_in_time():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"cannot be reached at 127.0.0.1:\d+ within 0 s"):
            join(unused.getsockname(), 1, 2, 0.4)
    assert time.monotonic() - began < 5.0
    assert Unreachable.code == LOST


def test_a_relay_carries_both_ways_and_outlives_the_far_end():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = relay(*server.getsockname()).split(":")
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


def test_messages_are_whole_however_they_arrive():
    left, right = socket.socketpair(socket.AF_UNIX)
    right.settimeout(5.0)
    wire = Wire.__new__(Wire)
    wire._socket, wire._rest, wire._lock = right, b"", threading.Lock()
    left.sendall(b'{"a": 1}\n{"b"')
    assert wire.receive() == [{"a": 1}]
    left.sendall(b": 2}\n")
    assert wire.receive() == [{"b": 2}]
    left.sendall(b"GET / HTTP/1.1\r\n")
    assert wire.receive() is None, "somebody else's protocol"
    left.close()
    right.close()
