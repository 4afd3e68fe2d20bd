"""A feature network of three numbers, in the place of Inception's."""

import numpy as np

from genjax.metrics.extraction import FeatureNetwork, own_mesh
from genjax.metrics.inception import colours, image_stream
from genjax.metrics.reference import gather_statistics

MATRIX = np.array([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]], np.float32)


def small(levels=256):
    """Three features, the colours' means, and logits of their product with a matrix."""
    return FeatureNetwork(
        "small",
        3,
        {"matrix": MATRIX},
        lambda params, x: colours(x, levels).mean(axis=(1, 2)),
        lambda params, features: features @ params["matrix"],
        digest="digest",
        original=True,
    )


NETWORK = small()


def gathered(batches, total, network=NETWORK, **options):
    """Statistics of images, called "these"."""
    mesh = own_mesh()
    return gather_statistics(network, mesh, image_stream(batches, mesh, 20), total, data="these", **options)


def images(count, seed=0, bright=256):
    return np.random.default_rng(seed).integers(0, bright, (count, 4, 5, 3)).astype(np.uint8)


def features_of(x):
    return x.reshape(len(x), -1, 3).mean(axis=1) / 255


def cut(x, *ends):
    return [part for part in np.split(x, ends) if len(part)]
