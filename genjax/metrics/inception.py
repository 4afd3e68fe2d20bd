"""Features and class probabilities of images by Inception-v3, with weights from a file, of which no pickle is executed.

Weights are `pt_inception-2015-12-05-6726825d.pth`, which the authors of pytorch-fid made of TensorFlow's file and named
by the beginning of its SHA-256: that is what tells the original from others, which are read too and said to be others.
A `.pth` is read by `torch.load(weights_only=True)`, where torch is installed; a `.safetensors` needs nothing. `convert`
makes the second of the first, and keeps the first's SHA-256 in it beside one of the arrays themselves, so that a change
is seen. The arrays' SHA-256 names the weights in reports and reference statistics, whatever file they were in.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Float32, Shaped, UInt8
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from genjax.errors import UserError
from genjax.networks.inception import FEATURES, Inception
from genjax.types import Array, PyTree

ORIGINAL = "6726825d"  # the SHA-256 of the original file begins so
FILE_DIGEST, ARRAYS_DIGEST = "pth_sha256", "arrays_sha256"  # entries of a safetensors file's header
LEAVES = {"scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
UNUSED = ("fc.bias", "num_batches_tracked")  # endings of names that these files have and nothing here needs

Arrays = dict[str, ndarray]
Looked = tuple[Float32[ndarray, "_ d"], Float32[ndarray, "_ k"]]


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network that images are looked at with, and what numbers made with it have to say.

    Attributes:
        name: of the network and the layer.
        size: d, the number of features.
        apply: (params, images [b, h, w, 3] in [0, 1], float32) -> (features [b, d], logits [b, k]); hashable.
        params: its weights.
        digest: SHA-256 of the weights.
        original: whether they are those that FID and Inception Score are defined by.
        batch_size: images in one compiled call, rounded up to a multiple of the devices.
    """

    name: str
    size: int
    apply: Callable[..., Any]
    params: PyTree
    digest: str
    original: bool
    batch_size: int = 64

    def look(self, batches: Iterable[Shaped[ndarray, "..."]]) -> Iterator[Looked]:
        """Features and probabilities of a stream of images, computed on this process's devices, none of them kept.

        Args:
            batches: grey (c = 1, which is repeated) or colour (c = 3), uint8 0 ... 255; any number in each.

        Yields:
            (features [n, d], probabilities [n, k]), float32, of at most `batch_size` images in the stream's order.

        Raises:
            UserError: images of another dtype or number of channels; features that are no numbers.
        """
        mesh = Mesh(np.array(jax.local_devices()), ("data",))
        rows, size = NamedSharding(mesh, P("data")), -(-self.batch_size // mesh.size) * mesh.size
        params = jax.device_put(self.params, NamedSharding(mesh, P()))
        for batch in batches:
            check_images(batch)
            for start in range(0, len(batch), size):
                part = batch[start : start + size]
                padded = part[np.minimum(np.arange(size), len(part) - 1)]
                found = jax.device_get(_look(self.apply, params, jax.device_put(padded, rows)))
                if not all(np.isfinite(array).all() for array in found):
                    raise UserError(
                        f"{self.name} makes features that are no numbers: its weights are damaged"
                    )
                yield found[0][: len(part)], found[1][: len(part)]


@functools.partial(jax.jit, static_argnums=0)
def _look(apply: Callable, params: PyTree, images: UInt8[Array, "b h w c"]) -> tuple[Array, Array]:
    """One compiled call of `FeatureNetwork.look`."""
    x = images.astype(jnp.float32) / 255.0
    features, logits = apply(params, jnp.broadcast_to(x, (*x.shape[:-1], 3)))
    return features, jax.nn.softmax(logits, axis=-1)


def check_images(images: Shaped[ndarray, "..."]) -> None:
    """Refuses what is no batch of images.

    Raises:
        UserError: another number of axes or channels, NaN, or a dtype that is not uint8.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"Inception looks at images [n, h, w, 1 or 3], not at {images.shape}")
    if images.dtype != np.uint8:
        bad = int((~np.isfinite(images)).sum()) if np.issubdtype(images.dtype, np.floating) else 0
        said = f"{bad} of {images.size} values NaN or infinite" if bad else f"of dtype {images.dtype}"
        raise UserError(f"Inception looks at images uint8 0..255; these are {said}")


def load_network(path: Path, batch_size: int = 64) -> FeatureNetwork:
    """Inception-v3 with the weights of a file.

    Args:
        path: `.safetensors`, or `.pth` or `.pt` where torch is installed.
        batch_size: images in one compiled call.

    Raises:
        UserError: the file is missing, damaged or of another network, or torch is needed and not there.
    """
    arrays, digest, original = read_weights(path)
    params = to_params(arrays)
    name = "Inception-v3 of TensorFlow, 2015-12-05: pool3"
    return FeatureNetwork(name, FEATURES, Inception().apply, params, digest, original, batch_size)


@functools.cache
def expected() -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """For each array of the file, by its name there: (path in the parameters, shape in the file)."""
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), images)
    found = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        path = tuple(str(key.key) for key in keys)
        *folders, last = path[1:]
        name = ".".join([*folders, LEAVES.get(last, "weight")])
        found[name] = (path, leaf.shape if leaf.ndim == 1 else (*leaf.shape[:-3:-1], *leaf.shape[:-2]))
    return found


def _turned(array: ndarray) -> ndarray:
    """A kernel [o, i, h, w] as [h, w, i, o], a matrix [o, i] as [i, o], a vector as it is."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_params(arrays: Mapping[str, ndarray]) -> PyTree:
    """Parameters of `Inception` from arrays by torchvision's names, as `read_weights` gives them."""
    params: dict[str, Any] = {}
    for name, (path, _) in expected().items():
        node = params
        for folder in path[:-1]:
            node = node.setdefault(folder, {})
        node[path[-1]] = np.ascontiguousarray(_turned(arrays[name]))
    return params


def read_weights(path: Path) -> tuple[Arrays, str, bool]:
    """The arrays of a file of weights.

    Args:
        path: `.safetensors`, `.pth` or `.pt`.

    Returns:
        (float32 arrays by torchvision's names, SHA-256 of the arrays, whether they are the original's).

    Raises:
        UserError: as `load_network`.
    """
    if not path.is_file():
        raise UserError(
            f"no file of weights {path}: give pt_inception-2015-12-05-{ORIGINAL}.pth or a conversion"
        )
    reader = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    found, header = reader(path)
    arrays = _checked(path, found)
    digest = arrays_digest(arrays)
    if header.get(ARRAYS_DIGEST, digest) != digest:
        raise UserError(f"{path} is damaged: its arrays are not those that were converted")
    return arrays, digest, header.get(FILE_DIGEST, "").startswith(ORIGINAL)


def _read_safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays, header); what the header says of the arrays holds only if it has their digest."""
    try:
        arrays = load_file(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return arrays, header if ARRAYS_DIGEST in header else {}


def _read_torch(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays, the file's SHA-256)."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} needs torch to be read: where torch is installed, run python -m experiments.convert "
            f"--source={path} --target={path.with_suffix('.safetensors')} and give the latter"
        ) from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {str(name): tensor.numpy() for name, tensor in found.items()}
    except Exception as error:  # torch raises many kinds
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} holds no weights that torch reads without executing code: {line}") from None
    with path.open("rb") as file:
        return arrays, {FILE_DIGEST: hashlib.file_digest(file, "sha256").hexdigest()}


def _checked(path: Path, found: Mapping[str, ndarray]) -> Arrays:
    """The arrays that the network needs, float32.

    Raises:
        UserError: an array is missing, unknown, of another shape, or holds NaN.
    """
    wanted = expected()
    for name in sorted(found):
        if name not in wanted and not name.endswith(UNUSED):
            raise UserError(
                f"{path} is of another network: it has '{name}', which FID's Inception-v3 has not"
            )
    arrays = {}
    for name, (_, shape) in wanted.items():
        if name not in found:
            raise UserError(f"{path} is of another network: it lacks '{name}'")
        arrays[name] = np.ascontiguousarray(found[name], np.float32)
        if arrays[name].shape != shape:
            sizes = f"{arrays[name].shape}, expected {shape}"
            raise UserError(f"{path} is of another network: '{name}' has the shape {sizes}")
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{path} is damaged: '{name}' has values that are no numbers")
    return arrays


def arrays_digest(arrays: Mapping[str, Float[ndarray, "..."]]) -> str:
    """SHA-256 of names, shapes and float32 values (little-endian), in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def convert(source: Path, target: Path) -> None:
    """Writes the weights of a `.pth` as `.safetensors`; see the module.

    Raises:
        UserError: as `load_network`; the target is no `.safetensors` or cannot be written.
    """
    if source.suffix == ".safetensors" or target.suffix != ".safetensors":
        raise UserError(
            f"Inception's weights go from a .pth to a .safetensors, not from {source} to {target}"
        )
    if not source.is_file():
        raise UserError(f"no file of weights {source}")
    found, header = _read_torch(source)
    arrays = _checked(source, found)
    try:
        save_file(arrays, target, header | {ARRAYS_DIGEST: arrays_digest(arrays)})
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot write {target}: {error}") from None
