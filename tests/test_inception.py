"""FID's network by parts, its weights' files, statistics of streams, and what is said of FID, IS and KID."""

import dataclasses
import hashlib
import itertools
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.linalg import sqrtm

from genjax import experiment as experiments
from genjax import verbs
from genjax.data import Data, Digits, Scale
from genjax.errors import UserError
from genjax.metrics import fid, inception, reference
from genjax.metrics.inception import FeatureNetwork, convert, expected, load_network, read_weights
from genjax.metrics.reference import gather_statistics, load_statistics, save_statistics
from genjax.networks.inception import MixedA, MixedC, MixedE, Unit, max_pool, mean_pool, resize

RNG = np.random.default_rng(0)


# The network.


def neighbours(x, i, j):
    return x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]


def test_pools_see_the_neighbours_within_the_image_alone():
    x = jnp.asarray(RNG.normal(size=(2, 5, 4, 3)) - 10.0, jnp.float32)
    places = list(itertools.product(range(5), range(4)))
    means = np.stack(
        [neighbours(np.asarray(x), *place).mean(axis=(1, 2)) for place in places], axis=1
    ).reshape(x.shape)
    most = np.stack([neighbours(np.asarray(x), *place).max(axis=(1, 2)) for place in places], axis=1).reshape(
        x.shape
    )
    np.testing.assert_allclose(mean_pool(x), means, rtol=1e-6)
    np.testing.assert_array_equal(max_pool(x), most)
    assert mean_pool(jnp.ones((1, 3, 3, 1))).min() == 1.0


@pytest.mark.parametrize("size", [8, 28, 299, 640])
def test_a_resized_ramp_is_the_ramp_at_the_clipped_half_pixel_centres(size):
    """Linear between pixels, constant beyond the outermost; the same when there are more pixels than places."""
    ramp = np.arange(size, dtype=np.float32)
    x = np.broadcast_to(2 * ramp[:, None] + 3 * ramp[None] - 7, (size, size))[None, :, :, None]
    place = np.clip((np.arange(299) + 0.5) * size / 299 - 0.5, 0, size - 1)
    np.testing.assert_allclose(
        resize(jnp.asarray(x))[0, :, :, 0], 2 * place[:, None] + 3 * place[None] - 7, rtol=1e-5, atol=1e-3
    )


def test_resizing_down_does_not_smooth():
    x = RNG.uniform(size=(1, 7, 11, 2)).astype(np.float32)
    place = [np.clip((np.arange(5) + 0.5) * n / 5 - 0.5, 0, n - 1) for n in x.shape[1:3]]
    low = [np.floor(q).astype(int) for q in place]
    high = [np.minimum(q + 1, n - 1) for q, n in zip(low, x.shape[1:3], strict=True)]
    a, b = (place[0] - low[0])[:, None, None], (place[1] - low[1])[None, :, None]
    at = lambda i, j: x[0][np.ix_(i, j)]
    rows = [(1 - b) * at(i, low[1]) + b * at(i, high[1]) for i in (low[0], high[0])]
    np.testing.assert_allclose(resize(jnp.asarray(x), 5)[0], (1 - a) * rows[0] + a * rows[1], atol=1e-6)


def test_batch_norm_is_that_of_given_statistics():
    values = {
        name: RNG.uniform(0.5, 2.0, size=4).astype(np.float32) for name in ("scale", "bias", "mean", "var")
    }
    kernel = RNG.normal(size=(1, 1, 3, 4)).astype(np.float32)
    x = jnp.asarray(RNG.normal(size=(2, 3, 3, 3)), jnp.float32)
    z = (np.asarray(x) @ kernel[0, 0] - values["mean"]) / np.sqrt(values["var"] + 0.001)
    found = Unit(4).apply({"params": {"conv": {"kernel": jnp.asarray(kernel)}, **values}}, x)
    np.testing.assert_allclose(
        found, np.maximum(z * values["scale"] + values["bias"], 0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("block", "channels", "pool"),
    [
        (MixedA(32), 32, mean_pool),
        (MixedC(128), 192, mean_pool),
        (MixedE(), 192, mean_pool),
        (MixedE(by_max=True), 192, max_pool),
    ],
)
def test_each_block_has_its_kind_of_pool(block, channels, pool):
    """All kernels zero but that of the pooled branch, which picks channels: they are the pool itself."""
    x = jnp.asarray(RNG.uniform(size=(1, 4, 4, channels + 5)), jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    params["branch_pool"]["conv"]["kernel"][0, 0, :channels] = np.eye(channels)
    params["branch_pool"] |= {name: np.ones(channels, np.float32) for name in ("scale", "var")}
    y = jax.jit(block.apply)({"params": params}, x)
    picked = pool(x)[..., :channels] / np.sqrt(1.001)
    np.testing.assert_allclose(y[..., -channels:], picked, rtol=1e-5)
    assert not y[..., :-channels].any()


def test_the_file_is_expected_to_have_as_many_values_as_the_published_network():
    """21,785,568 trained values before the last layer: 21,768,352 of Keras' InceptionV3, and the scales it has not."""
    sizes = {name: int(np.prod(shape)) for name, (_, shape) in expected().items()}
    trained = [name for name in sizes if "running" not in name and name != "fc.weight"]
    scales = sum(size for name, size in sizes.items() if name.endswith("bn.weight"))
    assert sum(sizes[name] for name in trained) == 21_785_568 == 21_768_352 + scales
    assert expected()["fc.weight"][1] == (1008, 2048)
    assert expected()["Mixed_6b.branch7x7_2.conv.weight"][1] == (128, 128, 1, 7)


# Files of weights.


def blank(value=0.0):
    """Arrays of the right names and shapes, of next to no memory."""
    return {name: np.broadcast_to(np.float32(value), shape) for name, (_, shape) in expected().items()}


@pytest.fixture
def torch(monkeypatch):
    """A torch that reads what is put into it, and only safely."""
    held = {}

    def load(path, map_location, weights_only):
        assert weights_only
        assert map_location == "cpu"
        return {name: types.SimpleNamespace(numpy=lambda a=array: a) for name, array in held.items()}

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    return held


def test_a_conversion_reads_as_the_pth_and_tells_the_original(torch, tmp_path, monkeypatch):
    source, target = tmp_path / "weights.pth", tmp_path / "weights.safetensors"
    source.write_bytes(b"a file")
    torch |= blank(0.5) | {"fc.bias": np.zeros(1008), "Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros(())}
    torch["Mixed_6b.branch7x7_2.conv.weight"] = RNG.normal(size=(128, 128, 1, 7)).astype(np.float32)
    convert(source, target)
    arrays, digest, original = read_weights(source)
    again, same, still = read_weights(target)
    assert (digest, original) == (same, still) == (digest, False)
    np.testing.assert_array_equal(*(a["Mixed_6b.branch7x7_2.conv.weight"] for a in (arrays, again)))
    monkeypatch.setattr(inception, "ORIGINAL", hashlib.sha256(b"a file").hexdigest()[:8])
    network = load_network(target)
    assert network.original
    assert read_weights(source)[2]
    kernel = network.params["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 2, 5, 7], arrays["Mixed_6b.branch7x7_2.conv.weight"][7, 5, 0, 2])
    forged = {inception.FILE_DIGEST: inception.ORIGINAL}
    save_file(arrays, target, forged)
    assert not read_weights(target)[2]
    save_file(arrays, target, forged | {inception.ARRAYS_DIGEST: "0" * 64})
    with pytest.raises(UserError, match="its arrays are not those that were converted"):
        read_weights(target)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"fc.weight": np.zeros((1000, 2048), np.float32)},
            r"'fc.weight' has the shape \(1000, 2048\), expected \(1008",
        ),
        ({"AuxLogits.conv0.conv.weight": np.zeros(1)}, "it has 'AuxLogits.conv0.conv.weight', which FID's"),
        ({"Mixed_7c.branch_pool.bn.bias": None}, "it lacks 'Mixed_7c.branch_pool.bn.bias'"),
        (
            {"Mixed_7c.branch_pool.bn.bias": np.full(192, np.nan)},
            "'Mixed_7c.branch_pool.bn.bias' has values that are no",
        ),
    ],
)
def test_weights_of_another_network_are_one_line(torch, tmp_path, change, words):
    torch |= {name: array for name, array in (blank() | change).items() if array is not None}
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=words) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    pth, bad = tmp_path / "weights.pth", tmp_path / "bad.safetensors"
    pth.write_bytes(b"pickle")
    bad.write_bytes(b"nonsense")
    for call, words in [
        (lambda: read_weights(tmp_path / "none.pth"), "no file of weights .*none.pth"),
        (
            lambda: read_weights(pth),
            "needs torch to be read: .* experiments.convert --source=.*weights.safetensors",
        ),
        (lambda: read_weights(bad), "bad.safetensors is damaged"),
        (lambda: convert(bad, pth), "from a .pth to a .safetensors"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


# Statistics, by a small network in the place of the large one.


def small(params, x):
    """Three features, the colours' means, and logits of their product with a matrix."""
    features = x.mean(axis=(1, 2))
    return features, features @ params["matrix"]


MATRIX = np.array([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]], np.float32)
NETWORK = FeatureNetwork("small", 3, small, {"matrix": MATRIX}, "digest", original=True, batch_size=20)


def images(count, seed=0, bright=256):
    return np.random.default_rng(seed).integers(0, bright, (count, 4, 5, 3)).astype(np.uint8)


def features_of(x):
    return x.reshape(len(x), -1, 3).mean(axis=1) / 255


def cut(x, *ends):
    return [part for part in np.split(x, ends) if len(part)]


def test_a_stream_over_devices_is_looked_at_in_order_whatever_its_batches():
    x = images(73)
    looked = list(NETWORK.look(cut(x, 1, 3, 60)))
    features, probabilities = (np.concatenate(parts) for parts in zip(*looked, strict=True))
    np.testing.assert_allclose(features, features_of(x), rtol=1e-5)
    odds = np.exp(features_of(x) @ MATRIX)
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    grey = next(NETWORK.look([x[:5, :, :, :1]]))[0]
    np.testing.assert_array_equal(grey, grey[:, :1].repeat(3, axis=1))


def test_streamed_statistics_are_those_of_the_whole_set():
    x = images(101)
    whole = np.concatenate([features for features, _ in NETWORK.look([x])]).astype(np.float64)
    found = gather_statistics(NETWORK, cut(x, 1, 34, 35, 90), 101, data="these", kept=30, splits=4)
    np.testing.assert_allclose(found.moments.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.covariance, np.cov(whole, rowvar=False), rtol=1e-9)
    rows = {tuple(row) for row in whole.astype(np.float32)}
    assert len({tuple(row) for row in found.features} & rows) == len(found.features) == 30
    for batches, total in ((cut(x, 50), 100), (cut(x, 50), 102)):
        with pytest.raises(UserError, match=f"images where {total} were expected"):
            gather_statistics(NETWORK, batches, total, data="these")
    with pytest.raises(UserError, match="these: 9 images, at least 10"):
        gather_statistics(NETWORK, [x[:9]], 9, data="these")


def flat(colour):
    return np.broadcast_to(np.array(colour, np.uint8), (2, 2, 3))


def test_inception_score_of_known_probabilities_in_consecutive_parts():
    """Two kinds of images, of probabilities p and p': exp(H((p + p') / 2) - H(p)) where there are as many."""
    odds = np.exp([4.0, 0.0, 1.0])
    p = odds / odds.sum()
    entropy = lambda q: -(q * np.log(q)).sum()
    both = np.exp(entropy((p + p[[1, 0, 2]]) / 2) - entropy(p))
    x = np.stack([flat((255, 0, 0)), flat((0, 255, 0))] * 6 + [flat((255, 0, 0))] * 4)
    found = gather_statistics(NETWORK, cut(x, 3), 16, data="these", splits=4)
    np.testing.assert_allclose(found.scores, [both, both, both, 1.0], rtol=1e-5)


def test_fid_and_kid_are_the_formulas():
    a, b = images(40), images(60, seed=1, bright=200)
    made, real = (gather_statistics(NETWORK, [x], len(x), data="these") for x in (a, b))
    report = fid.inception_report(NETWORK, made, real, "these")
    x, y = features_of(a), features_of(b)
    c, d = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(axis=0) - y.mean(axis=0)
    assert report["fid"] == pytest.approx(
        shift @ shift + np.trace(c + d - 2 * np.real(sqrtm(c @ d))), rel=1e-5
    )
    assert report["inception_score"] == pytest.approx(made.scores.mean())
    assert report["inception_score_std"] == pytest.approx(np.std(made.scores))
    value, spread = fid.kernel_distance(x, x[::-1] + 0.1, subsets=3)
    k = lambda x, y: (x @ y.T / 3 + 1) ** 3
    off = 1 - np.eye(40)
    within = sum((k(z, z) * off).sum() for z in (x, x + 0.1)) / (40 * 39)
    assert value == pytest.approx(within - 2 * k(x, x + 0.1).mean(), rel=1e-9)
    assert spread < 1e-12
    halves = [fid.kernel_distance(x, y, size=20, seed=seed)[0] for seed in range(2)]
    np.testing.assert_allclose(halves, fid.kernel_distance(x, y[:40], subsets=1)[0], rtol=0.5)


# What is said of numbers.


def of(count, size=3, weights="digest", data="train split"):
    moments = reference.Moments(count, np.zeros(size), np.eye(size) * (count - 1))
    return reference.Statistics(moments, np.eye(size, dtype=np.float32), np.ones(10), weights, data)


OTHER = dataclasses.replace(NETWORK, original=False)
FOREIGN = dataclasses.replace(of(2, weights="", data=""), scores=np.empty(0))


def test_what_keeps_a_number_from_comparison_is_said():
    ready, real, wanted = of(50_000, data="samples"), of(60_000), "train split"
    for words, case in {
        "yes": (NETWORK, ready, real, wanted),
        "no: other weights than FID's": (OTHER, ready, real, wanted),
        "no: 49,999 samples, not 50,000": (NETWORK, of(49_999), real, wanted),
        "no: the reference's file does not say what it was made of": (NETWORK, ready, FOREIGN, wanted),
        "no: the reference is of the train split, not of the test split": (
            NETWORK,
            ready,
            real,
            "test split",
        ),
        "no: the reference's covariance is singular, 3 for 3 features": (NETWORK, ready, of(3), wanted),
        "no: 3 samples, not 50,000; the samples' covariance is singular, 3 for 3 features": (
            NETWORK,
            of(3),
            real,
            wanted,
        ),
    }.items():
        assert fid.comparable(*case) == words


def test_nothing_is_called_fid_but_what_the_original_weights_give():
    mine, others = (fid.inception_report(net, of(20), of(30)) for net in (NETWORK, OTHER))
    assert {"fid", "inception_score", "inception_score_std", "kid", "kid_std"} <= {*mine}
    named = [name for name in others if name in mine and name not in ("features", "weights", "comparable")]
    assert named == ["samples", "reference", "reference_samples"]
    assert "other weights" in others["weights"]
    assert not {"fid", "inception_score", "kid"} & {*others}
    stranger = fid.inception_report(NETWORK, of(20), FOREIGN)
    assert stranger["reference"].startswith("unknown")
    assert stranger["kid"].startswith("none")
    assert stranger["fid"] == pytest.approx(0.0, abs=1e-9)


# Files of statistics.


def test_statistics_come_back_from_their_file_and_from_that_of_others(tmp_path):
    made, path = gather_statistics(NETWORK, [images(31)], 31, data="these"), tmp_path / "deep" / "stats.npz"
    save_statistics(made, path)
    back = load_statistics(path, NETWORK)
    assert (back.count, back.weights, back.data) == (31, "digest", "these")
    for ours, theirs in [
        (made.moments.mean, back.moments.mean),
        (made.moments.covariance, back.moments.covariance),
        (made.features, back.features),
        (made.scores, back.scores),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.savez(path, mu=made.moments.mean, sigma=made.moments.covariance)
    back = load_statistics(path, NETWORK)
    assert back.foreign
    assert back.count is None
    np.testing.assert_array_equal(back.moments.covariance, made.moments.covariance)


def write(path: Path, **changes):
    arrays = {"mu": np.zeros(3), "sigma": np.eye(3), "count": 5, "weights": "digest", "data": "these"}
    arrays |= {"features": np.zeros((5, 3), np.float32), "scores": np.ones(10)} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mu": np.zeros(64)}, r"mu has the shape \(64,\), expected \(3,\)"),
        ({"sigma": np.eye(4)}, r"sigma has the shape \(4, 4\), expected \(3, 3\)"),
        ({"mu": None}, "holds no statistics: it lacks 'mu'"),
        ({"sigma": np.full((3, 3), np.nan)}, "sigma has values that are no numbers"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "sigma is not symmetric"),
        ({"weights": "another"}, "made with weights another, these are digest"),
        ({"features": None}, "damaged: it lacks 'features'"),
        ({"features": np.zeros((5, 2))}, "damaged: count=5, features"),
        ({"data": np.array([None])}, "cannot read statistics"),
    ],
)
def test_statistics_that_do_not_fit_are_one_line(tmp_path, changes, words):
    write(tmp_path / "stats.npz", **changes)
    with pytest.raises(UserError, match=words) as caught:
        load_statistics(tmp_path / "stats.npz", NETWORK)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_statistics_are_one_line(tmp_path):
    path = tmp_path / "stats.npz"
    write(path)
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot read statistics") as caught:
            load_statistics(path, NETWORK)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read statistics"):
        load_statistics(tmp_path / "none.npz", NETWORK)


# The judge of a data set.

DIGITS = Data(Digits(), (Scale(0.0, 16.0),))


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(fid, "load_network", lambda path, batch_size: NETWORK)
    lines = []
    made = fid.open_judge(DIGITS, tmp_path / "weights", tmp_path / "stats.npz", lines.append, 500)
    assert lines[-1] == f"wrote {tmp_path / 'stats.npz'}"
    return made


def test_the_training_split_is_the_reference_and_is_kept(judge, tmp_path, monkeypatch):
    train = DIGITS.load("train")[np.arange(1437)]["x"]
    grey = np.rint(train * (255 / 16)).reshape(1437, -1).mean(axis=1) / 255
    assert judge.reference.count == 1437
    np.testing.assert_allclose(judge.reference.moments.mean, np.full(3, grey.mean()), rtol=1e-5)
    np.testing.assert_allclose(
        judge.reference.moments.covariance, np.full((3, 3), grey.var(ddof=1)), rtol=1e-4
    )
    said = {"step": 7, "objective.sampler": {"steps": 5}, "held_out": {}}
    report = judge.report(train[:300], said)
    assert report["comparable"] == "no: 300 samples, not 50,000"
    assert report["reference"] == "train split of Digits()"
    assert (report["step"], report["objective.sampler"]) == (7, {"steps": 5})
    assert "held_out" not in report
    monkeypatch.setattr(fid, "gather_statistics", None)  # is not asked for again
    again = fid.open_judge(DIGITS, tmp_path / "weights", tmp_path / "stats.npz")
    np.testing.assert_array_equal(again.reference.features, judge.reference.features)


def test_samples_that_cannot_be_judged_are_one_line(judge):
    x = np.zeros((40, 8, 8, 1), np.uint8)
    x[0] = 3
    for samples, words in [
        (x[1:], "all 39 samples are equal"),
        (x[:5], "samples: 5 images, at least 10"),
        (x + 14, r"integers 0 ... 16; these are not: uint8 14 ... 17"),
        (x.astype(np.float32), "these are not: float32"),
        (np.where(x == 3, np.nan, 0.5), "64 of 2560 values are NaN or infinite"),
        (np.concatenate([x, x], axis=-1), r"not at \(20, 8, 8, 2\)"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            judge.report(samples)
        assert "\n" not in str(caught.value)
        assert judge.section(samples, {}) == {"none": str(caught.value)}
    with pytest.raises(UserError, match="features that are no numbers"):
        list(dataclasses.replace(NETWORK, params={"matrix": MATRIX * np.nan}).look([images(3)]))
    with pytest.raises(UserError, match="1 of 240 values NaN"):
        list(NETWORK.look([np.where(np.arange(240).reshape(4, 4, 5, 3) == 7, np.nan, 1.0)]))


@pytest.mark.slow
@pytest.mark.optimised
def test_a_run_is_evaluated_with_random_weights_that_are_said_to_be_others(tmp_path):
    """The whole network and the program's own entry; the reference is of others: to see 1,437 digits takes long."""
    weights, stats, workdir = tmp_path / "weights.safetensors", tmp_path / "stats.npz", tmp_path / "run"
    arrays = {}
    for name, (_, shape) in expected().items():
        centre = 1.0 if name.endswith(("running_var", "bn.weight")) else 0.0
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        arrays[name] = (centre + scale * RNG.normal(size=shape).clip(-5, 5)).astype(np.float32)
    save_file(arrays, weights)
    np.savez(stats, mu=np.zeros(2048), sigma=np.eye(2048))
    fast = [("steps", "2"), ("evaluation.num", "40"), ("evaluation.pictured", "16")]
    verbs.train(experiments.load("gan_digits", fast), "gan_digits", workdir)
    report = verbs.evaluate_workdir(workdir, [], weights, stats)["inception"]
    assert report["samples"] == 40
    assert report["frechet_other_weights"] > 0
    assert 1.0 <= report["class_score_other_weights"] <= 1008
    assert report["comparable"].startswith(
        "no: other weights than FID's; 40 samples, not 50,000; the samples' cov"
    )
    assert report["parameters_of"] == "moving average (EMA)"
    assert not {"fid", "inception_score", "kid"} & {*report}
    with pytest.raises(UserError, match="give its weights, --inception=FILE"):
        verbs.evaluate_workdir(workdir, [], None, stats)
    with pytest.raises(UserError, match="no file of weights"):
        verbs.evaluate_workdir(workdir, [], tmp_path / "none.pth")
