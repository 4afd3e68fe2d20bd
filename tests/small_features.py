"""A feature network of three numbers, in the place of Inception's."""

import numpy as np

from genjax.metrics.inception import FeatureNetwork


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
