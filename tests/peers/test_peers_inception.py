"""FID's Inception-v3 against that of pytorch-fid, with the same random weights in a .pth that both read.

Needs torchvision, which must match the torch version: `pip install torch==2.14.1 torchvision==0.29.1
pytorch-fid==0.3.0`, in a separate environment, instead of the torch of requirements-peers.txt.
"""

import jax
import numpy as np
import pytest

from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.features import inception
from genjax.metrics.features.extraction import stream_statistics
from genjax.metrics.features.inception import convert, image_stream, load_network, read_weights
from genjax.networks.convolutional.inception import Inception, resize
from genjax.parallel.mesh import make_mesh

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("pytorch_fid.inception")
scores = pytest.importorskip("pytorch_fid.fid_score")

pytestmark = [pytest.mark.peers, pytest.mark.optimised]
SIZES = ((28, 28), (299, 299), (320, 256))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A random .pth in the original's layout, scaled so that layers preserve the scale of their inputs."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    rng = np.random.default_rng(0)
    net = theirs._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    state = {}
    for name, value in net.state_dict().items():
        fan = np.prod(value.shape[1:]) if value.ndim > 1 else 1
        if name.endswith(("running_var", "bn.weight")):
            array = rng.uniform(0.5, 1.5, value.shape)
        elif name.endswith("num_batches_tracked"):
            array = np.zeros(value.shape)
        else:
            array = rng.normal(size=value.shape) * (np.sqrt(2 / fan) if value.ndim > 1 else 0.2)
        state[name] = torch.tensor(array).to(value.dtype)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def nets(weights):
    """(ours, their network with access to all layers, their network as pytorch-fid uses it)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            theirs, "load_state_dict_from_url", lambda url, progress: torch.load(weights, weights_only=True)
        )
        layers, used = theirs.fid_inception_v3().eval(), theirs.InceptionV3([0, 1, 2, 3]).eval()
    return load_network(weights), layers, used


def pictures(size, count=2):
    return np.random.default_rng(sum(size)).integers(0, 256, (count, *size, 3)).astype(np.uint8)


def channels_first(x):
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def channels_last(y):
    return y.permute(0, 2, 3, 1).detach().numpy()


def agree(ours, other):
    """To 1e-4 of the layer's largest value, or absolute if that is below 1."""
    assert np.abs(ours - other).max() <= 1e-4 * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("size", [(8, 8), *SIZES, (600, 31)])
def test_resizing(size):
    x = (pictures(size) / 255).astype(np.float32)
    other = torch.nn.functional.interpolate(
        channels_first(x), size=(299, 299), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize(jax.numpy.asarray(x)), channels_last(other), atol=1e-5)


def test_every_layer(nets):
    """The output of every unit and block."""
    ours, layers, _ = nets
    seen = {}

    def hook(name):
        return lambda module, given, out: seen.update({name: out})

    for name, module in layers.named_modules():
        if name and not name.endswith((".conv", ".bn")) and "AuxLogits" not in name:
            module.register_forward_hook(hook(name))
    x = (pictures((40, 40)) / 255).astype(np.float32)
    resized = torch.nn.functional.interpolate(
        channels_first(x), size=(299, 299), mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        layers(2 * resized - 1)
    _, kept = jax.jit(lambda p, x: Inception().apply(p, x, capture_intermediates=True))(ours.params, x)
    found = {
        ".".join(str(key.key) for key in path[:-2]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(kept["intermediates"])
    }
    compared = [name for name in seen if name in found and seen[name].ndim == 4]
    assert len(compared) == 94 + 11  # units and blocks
    for name in compared:
        agree(np.asarray(found[name]), channels_last(seen[name]))
    bias = layers.fc.bias.detach().numpy()
    agree(np.asarray(found["fc"]), seen["fc"].detach().numpy() - bias)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # theirs, of scipy.linalg.sqrtm
@pytest.mark.parametrize("size", SIZES)
def test_features_and_their_frechet_distance(nets, size):
    ours, _, used = nets
    x = pictures(size, 6)
    features = stream_statistics(ours, make_mesh(), image_stream([x], make_mesh(), 8)).rows.features()
    with torch.no_grad():
        outputs = used(channels_first((x / 255).astype(np.float32)))
    other = outputs[3][:, :, 0, 0].numpy()
    agree(features, other)
    assert [output.shape[1] for output in outputs] == [64, 192, 768, 2048]
    few = [rows[:, :2].astype(np.float64) for rows in (features, other)]  # of three examples not singular
    value = frechet(Moments.of(few[0][:3]), Moments.of(few[0][3:]))
    c, d = (np.cov(rows, rowvar=False) for rows in (few[1][:3], few[1][3:]))
    expected = scores.calculate_frechet_distance(few[1][:3].mean(axis=0), c, few[1][3:].mean(axis=0), d)
    assert value == pytest.approx(expected, rel=1e-2)


def test_conversion_preserves_the_weights(weights, tmp_path):
    target = tmp_path / "weights.safetensors"
    convert(weights, target)
    (a, digest, original), (b, same, still) = read_weights(weights), read_weights(target)
    assert (digest, original, still) == (same, False, False)
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name])


def test_a_pickle_that_runs_code_raises_one_line(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"x": print}, path)
    with pytest.raises(
        inception.UserError, match="no weights that torch reads without executing code"
    ) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
