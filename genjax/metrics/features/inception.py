"""Features and class probabilities of images by Inception-v3, with weights from a file; no pickle is executed.

Weights are `pt_inception-2015-12-05-6726825d.pth`, which the authors of pytorch-fid converted from TensorFlow's file
and named by the first digits of its SHA-256, which identifies the original. Other weights are accepted and reported as
such. A `.pth` is read by `torch.load(weights_only=True)`, which needs torch; a `.safetensors` needs no torch. `convert`
writes a `.safetensors` from a `.pth` and stores in it the SHA-256 of the `.pth` and of the arrays, to detect changes.
The arrays' SHA-256 identifies the weights in reports and reference statistics, independent of the file format.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Integer, Shaped, UInt8
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.core.extras import safetensors
from genjax.core.types import Array, PyTree
from genjax.metrics.features.extraction import FeatureNetwork, StreamBatch
from genjax.networks.convolutional.inception import FEATURES, Inception
from genjax.networks.weight_files import open_weights
from genjax.parallel.mesh import batch_sharding, batch_shards

ORIGINAL = "6726825d"  # first digits of the SHA-256 of the original file
FILE_DIGEST, ARRAYS_DIGEST = "pth_sha256", "arrays_sha256"  # entries of a safetensors file's header
LEAVES = {"scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
UNUSED = ("fc.bias", "num_batches_tracked")  # suffixes of unused arrays in these files

Arrays = dict[str, ndarray]


def to_rgb(x: Integer[Array, "b h w c"], levels: int = 256) -> Float32[Array, "b h w 3"]:
    """The network's input: RGB in [0, 1]; traceable.

    Args:
        x: integers 0 ... levels - 1, grey (c = 1, repeated) or RGB.
        levels: number of levels, mapped to 256 as by `to_bytes`.
    """
    known = jnp.asarray(to_bytes(np.arange(levels), levels), jnp.float32)
    seen = x.astype(jnp.float32) if levels == 256 else known[x]
    return jnp.broadcast_to(seen / 255.0, (*x.shape[:-1], 3))


def image_stream(batches: Iterable[Shaped[ndarray, "..."]], mesh: Mesh, size: int) -> Iterator[StreamBatch]:
    """Images as a stream of global batches.

    Args:
        batches: uint8 0 ... 255, grey or RGB, of any sizes; all of them on every process.
        mesh: the devices, of all processes or of this one.
        size: images per compiled call, rounded up to a multiple of the devices.

    Yields:
        Batches of one size; the last of each input batch is padded.

    Raises:
        UserError: images of another dtype or number of channels.
    """
    shards = batch_shards(mesh)
    size = -(-size // shards) * shards
    for batch in batches:
        check_images(batch)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            padded = part[np.minimum(np.arange(size), len(part) - 1)]
            place = lambda rows, padded=padded: padded[rows]
            yield StreamBatch(
                jax.make_array_from_callback(padded.shape, batch_sharding(mesh), place), len(part)
            )


def check_images(images: Shaped[ndarray, "..."]) -> None:
    """Raises unless images are uint8 [n, h, w, 1 or 3].

    Raises:
        UserError: another number of axes or channels, NaN, or another dtype.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"Inception needs images [n, h, w, 1 or 3], not {images.shape}")
    if images.dtype != np.uint8:
        bad = int((~np.isfinite(images)).sum()) if np.issubdtype(images.dtype, np.floating) else 0
        said = f"{bad} of {images.size} values NaN or infinite" if bad else f"of dtype {images.dtype}"
        raise UserError(f"Inception needs images uint8 0..255; these are {said}")


def to_bytes(x: Shaped[ndarray, "n ..."], levels: int) -> UInt8[ndarray, "n ..."]:
    """Maps integers 0 ... levels - 1 to 0 ... 255, rounded.

    Raises:
        UserError: x is not integer, or out of range.
    """
    if levels == 256 and x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.integer) or x.min() < 0 or x.max() >= levels:
        bad = np.issubdtype(x.dtype, np.floating) and int((~np.isfinite(x)).sum())
        said = (
            f"{bad} of {x.size} values are NaN or infinite" if bad else f"{x.dtype} {x.min()} ... {x.max()}"
        )
        raise UserError(f"Inception needs images of integers 0 ... {levels - 1}; these are not: {said}")
    return np.rint(x * (255.0 / (levels - 1))).astype(np.uint8)


def load_network(path: Path, levels: int = 256) -> FeatureNetwork:
    """Inception-v3 with weights from a file: integer images to pool3 features [b, 2048] and logits [b, 1008].

    Args:
        path: `.safetensors`, or `.pth` or `.pt` if torch is installed.
        levels: number of levels of the images.

    Raises:
        UserError: the file is missing, damaged or of another network, or needs torch, which is not installed.
    """
    arrays, digest, original = read_weights(path)
    network = Inception()
    return FeatureNetwork(
        "Inception-v3 of TensorFlow, 2015-12-05: pool3",
        FEATURES,
        to_params(arrays),
        lambda params, x: network.apply(params, to_rgb(x, levels))[0],
        lambda params, features: features @ params["params"]["fc"]["kernel"],
        digest=digest,
        original=original,
    )


@functools.cache
def expected_arrays() -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Array name in the file -> (path in the parameters, shape in the file)."""
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), images)
    found = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        path = tuple(str(key.key) for key in keys)
        *folders, last = path[1:]
        name = ".".join([*folders, LEAVES.get(last, "weight")])
        found[name] = (path, leaf.shape if leaf.ndim == 1 else (*leaf.shape[:-3:-1], *leaf.shape[:-2]))
    return found


def _to_flax(array: ndarray) -> ndarray:
    """A kernel [o, i, h, w] as [h, w, i, o], a matrix [o, i] as [i, o], a vector as it is."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_params(arrays: Mapping[str, ndarray]) -> PyTree:
    """Parameters of `Inception` from arrays with torchvision's names, see `read_weights`."""
    params: dict[str, Any] = {}
    for name, (path, _) in expected_arrays().items():
        node = params
        for folder in path[:-1]:
            node = node.setdefault(folder, {})
        node[path[-1]] = np.ascontiguousarray(_to_flax(arrays[name]))
    return params


def read_weights(path: Path) -> tuple[Arrays, str, bool]:
    """Reads the arrays of a file of weights.

    Args:
        path: `.safetensors`, `.pth` or `.pt`.

    Returns:
        (float32 arrays with torchvision's names, SHA-256 of the arrays, whether they are the original weights).

    Raises:
        UserError: as `load_network`.
    """
    if not path.is_file():
        raise UserError(
            f"no file of weights {path}: pass pt_inception-2015-12-05-{ORIGINAL}.pth or a conversion of it"
        )
    reader = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    found, header = reader(path)
    arrays = _checked(path, found)
    digest = arrays_digest(arrays)
    if header.get(ARRAYS_DIGEST, digest) != digest:
        raise UserError(f"{path} is damaged: its arrays do not match their checksum")
    return arrays, digest, header.get(FILE_DIGEST, "").startswith(ORIGINAL)


def _read_safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays, header); a header without the arrays' digest is ignored."""
    with open_weights(path) as file:
        arrays, header = {name: file.array(name) for name in file.names}, file.metadata
    return arrays, header if ARRAYS_DIGEST in header else {}


def _read_torch(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays, the file's SHA-256)."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} needs torch to be read: where torch is installed, convert it with "
            f"source={path} and target={path.with_suffix('.safetensors')}, and pass the latter"
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
    """The arrays of the network, float32.

    Raises:
        UserError: an array is missing, unknown, of another shape, or holds NaN.
    """
    wanted = expected_arrays()
    for name in sorted(found):
        if name not in wanted and not name.endswith(UNUSED):
            raise UserError(
                f"{path} is of another network: it has '{name}', which FID's Inception-v3 does not have"
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
            raise UserError(f"{path} is damaged: '{name}' has values that are NaN or infinite")
    return arrays


def arrays_digest(arrays: Mapping[str, Float[ndarray, "..."]]) -> str:
    """SHA-256 of names, shapes and float32 values (little-endian), in name order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def convert(source: Path, target: Path) -> None:
    """Converts the weights of a `.pth` to `.safetensors`; see the module.

    Raises:
        UserError: as `load_network`; the target is not a `.safetensors` or cannot be written.
    """
    if source.suffix == ".safetensors" or target.suffix != ".safetensors":
        raise UserError(
            f"Inception's weights are converted from a .pth to a .safetensors, not from {source} to {target}"
        )
    if not source.is_file():
        raise UserError(f"no file of weights {source}")
    found, header = _read_torch(source)
    arrays = _checked(source, found)
    library, files = safetensors()
    try:
        files.save_file(arrays, target, header | {ARRAYS_DIGEST: arrays_digest(arrays)})
    except (library.SafetensorError, OSError) as error:
        raise UserError(f"cannot write {target}: {error}") from None
