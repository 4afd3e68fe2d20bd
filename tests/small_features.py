"""A feature network with three features, in place of Inception."""

import numpy as np
from safetensors.numpy import save_file

from genjax.metrics.features.extraction import FeatureNetwork
from genjax.metrics.features.inception import expected_arrays, image_stream, to_rgb
from genjax.metrics.features.reference import gather_statistics
from genjax.parallel.mesh import make_mesh

MATRIX = np.array([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]], np.float32)


def small(levels=256):
    """Three features, the channel means, and logits by a linear head."""
    return FeatureNetwork(
        "small",
        3,
        {"matrix": MATRIX},
        lambda params, x: to_rgb(x, levels).mean(axis=(1, 2)),
        lambda params, features: features @ params["matrix"],
        digest="digest",
        original=True,
    )


NETWORK = small()


def gathered(batches, total, network=NETWORK, **options):
    """Statistics of images, called "these"."""
    mesh = make_mesh()
    return gather_statistics(network, mesh, image_stream(batches, mesh, 20), total, data="these", **options)


def images(count, seed=0, bright=256):
    return np.random.default_rng(seed).integers(0, bright, (count, 4, 5, 3)).astype(np.uint8)


def features_of(x):
    return x.reshape(len(x), -1, 3).mean(axis=1) / 255


def cut(x, *ends):
    return [part for part in np.split(x, ends) if len(part)]


def random_weights(path):
    """Writes a file of random weights for all of Inception-v3."""
    rng, arrays = np.random.default_rng(0), {}
    for name, (_, shape) in expected_arrays().items():
        centre = 1.0 if name.endswith(("running_var", "bn.weight")) else 0.0
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        arrays[name] = (centre + scale * rng.normal(size=shape).clip(-5, 5)).astype(np.float32)
    save_file(arrays, path)
