"""Agreement with torchmetrics (Fréchet distance, KID, score) and prdc, on the same features."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.distances.mmd import kernel_distance
from genjax.metrics.distances.scores import ClassEntropy

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(300, 8)) @ RNG.normal(size=(8, 8)) + 1.0
FAKE = RNG.normal(size=(280, 8)) @ RNG.normal(size=(8, 8))


class Given(torch.nn.Module):
    """Images [n, d, 1, 1] are their own features."""

    num_features = 8

    def forward(self, x):
        return x.flatten(1).to(torch.float64)


def images(x):
    return torch.tensor(x)[:, :, None, None]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc(k):
    near = REAL[:280] + 0.4 * FAKE  # partial overlap
    found, expected = prdc(REAL, near, k, chunk=64), compute_prdc(REAL, near, nearest_k=k)
    assert 0.0 < expected["recall"] < 1.0
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-12)


def test_kernel_distance_is_kid():
    """On subsets of all examples, equally many on both sides: torchmetrics draws its own subsets."""
    peer = KernelInceptionDistance(feature=Given(), subsets=3, subset_size=280, degree=3, normalize=False)
    peer.update(images(REAL[:280]), real=True)
    peer.update(images(FAKE), real=False)
    mean, std = peer.compute()
    found = kernel_distance(REAL[:280], FAKE, subsets=3, size=280)
    assert found[0] == pytest.approx(float(mean), rel=1e-5)
    assert found[1] == pytest.approx(float(std), abs=1e-4 * found[0])


def test_frechet():
    """Their sums are float64, in three updates; ours stream in seven."""
    peer = FrechetInceptionDistance(feature=Given(), input_img_size=(8, 1, 1), normalize=True).set_dtype(
        torch.float64
    )
    for x, real in ((REAL, True), (FAKE, False)):
        for part in np.array_split(x, 3):
            peer.update(images(part), real=real)
    found = frechet(Moments.of_stream(np.array_split(REAL, 7)), Moments.of(FAKE))
    assert found == pytest.approx(float(peer.compute()), rel=1e-5)


def test_score():
    logits = 2.0 * REAL

    class Logits(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)

    peer = InceptionScore(feature=Logits(), splits=1, normalize=False)
    peer.update(images(logits))
    parts = [ClassEntropy.of_logits(part) for part in np.array_split(logits, 4)]
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    assert merged.score == pytest.approx(float(peer.compute()[0]), rel=1e-6)
