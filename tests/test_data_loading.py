"""Workers, data resident on devices and memory-mapped token files give the same batches bit for bit."""

import dataclasses
import json
import os
import pathlib
import pickle
import time

import jax
import numpy as np
import pytest
from jax._src import xla_bridge
from PIL import Image
from test_step import Regression

from genjax.core.errors import UserError
from genjax.data import Batches, Data, ImageFolder, Table, Tokens, Windows
from genjax.data import resident as residents
from genjax.data.loading import Input, read_ahead
from genjax.data.text import token_files
from genjax.data.text.tokenized import Encoding, train_tokenizer
from genjax.parallel.mesh import make_mesh, shard_batch
from genjax.training import experiment as experiments
from genjax.training import loop
from genjax.training.experiment import Experiment
from genjax.training.optimizers import SGD

RNG = np.random.default_rng(0)
STREAM = RNG.integers(0, 2**16, 300).astype(np.uint16)
EXAMPLES = {
    "pictures": Table(
        {"x": RNG.integers(0, 256, (30, 4, 3, 2)).astype(np.uint8), "label": np.arange(30, dtype=np.int32)}
    ),
    "points": Table({"x": RNG.normal(size=(30, 2)).astype(np.float32)}),
    "tokens": Windows(STREAM, 8),
    "disjoint tokens": Windows(STREAM, 8, 8),
}


def same(ours, theirs) -> None:
    """Bit for bit, dtypes and names included."""
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(array, theirs[name])


@pytest.mark.parametrize("mesh", ["data:8", "data:2,fsdp:4", "tensor:2,data:4"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_batches_gathered_on_devices_are_those_of_the_host(name, mesh):
    """In any step of several epochs; each device gathers its own rows, without collectives."""
    examples, devices = EXAMPLES[name], make_mesh(mesh)
    batches, arrays = Batches(examples, 16, seed=3), residents.place(examples, devices)
    gather = jax.jit(residents.gather(examples))
    index = lambda step: shard_batch({residents.INDEX: batches.indices(step).astype(np.int32)}, devices)
    for step in (0, 1, 20):
        made, placed = gather(arrays, index(step)), shard_batch(batches(step), devices)
        same(made, placed)
        assert all(made[key].sharding.is_equivalent_to(placed[key].sharding, made[key].ndim) for key in made)
    text = gather.lower(arrays, index(0)).compile().as_text()
    assert "all-" not in text
    assert "collective" not in text
    assert "gather" in text


@dataclasses.dataclass(frozen=True)
class Points:
    """Thirty points, so that batches span epochs."""

    kind = "points"
    shape = (2,)
    dtype = "float32"
    classes = 0
    levels = 0
    splits = ("train", "test")

    def load(self, split):
        return EXAMPLES["points"]


def ready(**options) -> loop.Run:
    return loop.prepare(
        Experiment(
            Regression(), Data(Points()), SGD(momentum=0.9), batch_size=16, steps=6, input=Input(**options)
        )
    )


def train(run: loop.Run, state, first: int, length: int, stacked: bool = False):
    if stacked:
        return run.compiled(state, run.batch(first, length), True)[0]
    for step in range(first, first + length):
        state, _ = run.compiled(state, run.batch(step, 1), False)
    return state


@pytest.mark.optimised
def test_training_is_bit_identical_wherever_the_data_reside():
    """Also if a resumed run places them elsewhere, and in calls of several steps."""
    host, device = ready(resident=False), ready(resident=True)
    assert device.resident
    assert ready().resident, "small data sets reside on the devices"
    assert not ready(resident_mib=0).resident
    assert not loop.prepare(dataclasses.replace(device.experiment, compile="pmap")).resident
    assert set(device.batch(0, 1)) == {residents.INDEX}
    reference = train(host, host.make_state(), 0, 6)
    others = [
        train(device, device.make_state(), 0, 6),
        train(device, train(host, host.make_state(), 0, 2), 2, 4),
        train(host, train(device, device.make_state(), 0, 2), 2, 4),
    ]
    stacked = [train(run, run.make_state(), 0, 6, stacked=True) for run in (host, device)]
    for result, expected in [*((other, reference) for other in others), (stacked[1], stacked[0])]:
        jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_indices_of_processes_make_up_the_global_batch(processes):
    """The indices for resident data sets: each example once per epoch over all processes."""
    parts = [Batches(EXAMPLES["points"], 8, 1, number, processes) for number in range(processes)]
    seen = np.concatenate([part.indices(step) for step in range(15) for part in parts])
    np.testing.assert_array_equal(np.sort(seen.reshape(4, 30), axis=1), np.tile(np.arange(30), (4, 1)))
    np.testing.assert_array_equal(
        seen, np.concatenate([Batches(EXAMPLES["points"], 8, 1).indices(step) for step in range(15)])
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """Images with the id of the process that decoded them, and whether JAX was initialised there."""

    pictures: object

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, indices):
        probed = {"pid": np.array(os.getpid()), "jax": np.array(xla_bridge.backends_are_initialized())}
        return {**self.pictures[indices], **probed}


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    for number in range(20):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(path)
    return tmp_path / "pictures"


def alive(pid: int) -> bool:
    path = pathlib.Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_workers_make_the_batches_of_the_host(folder, workers):
    """From the middle of an epoch on, for one process of two; then a one-line error, and the workers' exit."""
    pictures = ImageFolder(str(folder), size=4, memory_mib=0).load("train")
    batches = Batches(Probe(pictures), 8, 5, 1, 2)
    jax.devices()
    pids = set()
    with read_ahead(batches, 3, 1000, Input(workers=workers), __name__) as rows:
        for step in range(3, 12):
            made, expected = rows(step), batches(step)
            pids.add(int(made.pop("pid")))
            assert not made.pop("jax")
            assert expected.pop("pid") == os.getpid()
            assert expected.pop("jax")
            same(made, expected)
        for file in folder.glob("*/*.png"):
            file.unlink()
        with pytest.raises(UserError, match="cannot decode the picture") as error:
            list(map(rows, range(12, 100)))
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="cannot decode the picture"):  # and does not block
            rows(100)
    assert len(pids) == workers
    assert os.getpid() not in pids
    for _ in range(100):
        if not any(map(alive, pids)):
            break
        time.sleep(0.05)
    assert not any(map(alive, pids))


TEXTS = [
    f"Document {number}: " + "tell me, o muse, " * (number % 5) + chr(97 + number % 26)
    for number in range(60)
]


@pytest.fixture
def prepared(tmp_path):
    """(folder of token files, its tokenizer's path): three text files in a byte-pair encoding, in small shards."""
    tokenizer = tmp_path / "tokenizer.json"
    train_tokenizer(TEXTS, 300, tokenizer)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(
            "".join(f"{text}\n\n" for text in TEXTS[20 * number : 20 * (number + 1)])
        )
    paths = [str(tmp_path / f"{number}.txt") for number in range(3)]
    token_files.write(paths, str(tokenizer), tmp_path / "tokens", separator="\n\n", shard=40)
    return tmp_path / "tokens", tokenizer


def test_mapped_windows_are_those_of_the_tokens_in_memory(prepared):
    """In both splits, across documents and files, and after pickling to another process."""
    path, tokenizer = prepared
    encoding, source = Encoding(str(tokenizer)), Tokens(str(path), length=48)
    assert (source.levels, source.end) == (300, 0)
    splits = {
        split: [t for t in TEXTS if token_files.is_test(t, 0.1) == (split == "test")]
        for split in source.splits
    }
    assert len(list(path.glob("train-*.bin"))) > 5
    for split, texts in splits.items():
        stream = np.concatenate([np.append(encoding.encode(text.encode()), 0) for text in texts])
        whole, mapped = Windows(stream, 48, 1 if split == "train" else 48), source.load(split)
        assert len(mapped) == len(whole) > 0
        order = RNG.permutation(len(whole))
        same(mapped[order], whole[order])
        sent = pickle.dumps(mapped)
        assert len(sent) < 4000
        same(pickle.loads(sent)[order], whole[order])
        made = jax.jit(mapped.gather)(residents.place(mapped, make_mesh()), order.astype(np.int32))
        same(made, whole[order])
    text = source.vocabulary.decode(source.load("train")[np.array([0])]["x"][0])
    assert splits["train"][0] in text


def test_byte_tokens_are_the_text(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS) + "é\n")
    body = token_files.write([str(tmp_path / "a.txt")], "byte", tmp_path / "out", separator="\n\n", test=0.3)
    assert (body["dtype"], body["vocabulary"], body["end"]) == ("uint8", 256, None)
    streams = [
        bytes(np.asarray(Tokens(str(tmp_path / "out"), 48).load(split).stream)) for split in ("train", "test")
    ]
    kept = [
        part if number == 59 else part + "\n\n"
        for number, part in enumerate([*TEXTS[:-1], TEXTS[-1] + "é\n"])
    ]
    assert streams[1].decode() == "".join(text for text in kept if token_files.is_test(text, 0.3))
    assert sum(map(len, streams)) == len((tmp_path / "a.txt").read_bytes())


def _flip(path):
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(bytes(data))


def _rewrite(path, **changes):
    from genjax.core.checksums import read_checksummed, with_checksum

    path.write_text(with_checksum({**read_checksummed(path), **changes}))


DAMAGE = {
    "a bit": (lambda path: _flip(path / "train-00001.bin"), "train-00001.bin has changed"),
    "the end": (lambda path: os.truncate(path / "train-00001.bin", 30), "has 30 bytes instead of"),
    "a file": (lambda path: (path / "train-00000.bin").unlink(), "cannot read the token file.*No such file"),
    "the description": (lambda path: _flip(path / "tokens.json"), "tokens.json is damaged"),
    "no description": (lambda path: (path / "tokens.json").unlink(), "tokens.json is missing"),
    "foreign": (lambda path: (path / "tokens.json").write_text("[1]"), "tokens.json is damaged"),
    "other": (lambda path: _rewrite(path / "tokens.json", kind="corpus"), "is corpus of format 1"),
    "newer": (lambda path: _rewrite(path / "tokens.json", format=2), "of format 2; this genjax reads"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_token_files_are_one_line(prepared, name):
    path, _ = prepared
    harm, words = DAMAGE[name]
    Tokens(str(path), 48).load("train")
    harm(path)
    with pytest.raises(UserError, match=words) as error:
        Tokens(str(path), 48).load("train")
    assert "\n" not in str(error.value)


def test_invalid_texts_and_options_raise(tmp_path):
    text, out = tmp_path / "a.txt", tmp_path / "out"
    text.write_text("one document")
    cases = [
        (lambda: token_files.write([str(text)], "byte", out), "none of the 1 documents is in the test split"),
        (lambda: token_files.write([str(text)], "byte", tmp_path), "is not empty"),
        (
            lambda: token_files.write([str(tmp_path / "b")], "byte", tmp_path / "1"),
            "cannot read the text file",
        ),
        (lambda: token_files.write([str(text)], "no.json", tmp_path / "2"), "no tokenizer 'no.json'"),
        (lambda: token_files.write([str(text)], "byte", tmp_path / "3", end="x"), "leave out end="),
        (lambda: Tokens().load("train"), "config.data.source.path=DIR"),
        (
            lambda: ready(workers=1, resident=True) and experiments.check(ready(workers=-1).experiment),
            "workers=-1",
        ),
        (
            lambda: residents.choose(Probe(None), make_mesh(), Input(resident=True)),
            "needs examples in memory",
        ),
    ]
    for call, words in cases:
        with pytest.raises(UserError, match=words):
            call()


def test_configs_accept_token_files(prepared):
    """As the variant of a language model's config, or by flags."""
    path, _ = prepared
    named = experiments.load(f"ar_gpt2:{path}")
    assert (named.data.levels, named.objective.values, named.objective.stop) == (300, 300, (0,))
    flags = [("data.source", "Tokens"), ("data.source.path", str(path)), ("input.workers", "2")]
    assert experiments.load("ar_bytes", flags).data.source == Tokens(str(path))
    json.dumps(experiments.describe(named, "ar_gpt2"))
