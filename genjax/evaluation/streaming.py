"""Streaming evaluation of a trained model, for sets that no process can hold: samples and data pass in batches.

Every process draws its devices' part of each batch of samples, maps it to features and discards it; likewise for the
data. The accumulators are merged over processes: O(d^2) numbers for sums, and the features, n x d, for pairwise
metrics. Features come from any `FeatureNetwork`, including FID's Inception; the report has its name and the counts.

`evaluate` follows another protocol (cross-fitting on a training set in memory, see `metrics.report`): do not compare
its values with these. Numbers that end in "_reference" replace the samples by as many real examples.
`stream_workdir` takes these from the training split, without those that the network was fitted to; the model does not
enter these numbers, so it does not matter that it was trained on them.
"""

import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.core.errors import UserError
from genjax.data import Data, sweep
from genjax.data.examples import Examples, Subset
from genjax.evaluation.held_out import eval_batch_size
from genjax.evaluation.likelihood import Report
from genjax.evaluation.sampling import gather, in_units, sample_batches
from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.frechet import frechet
from genjax.metrics.distances.mmd import RBF, Polynomial, gaussian_mmd, kernel_distance
from genjax.metrics.distances.sliced import sliced_wasserstein
from genjax.metrics.distances.streaming import FeatureStatistics, scatter_ratios
from genjax.metrics.distances.two_sample import classifier_test, one_nn_accuracy
from genjax.metrics.features.extraction import (
    FeatureNetwork,
    StreamBatch,
    stream_prefix_statistics,
    stream_statistics,
)
from genjax.metrics.features.fid import comparable, describe_split, describe_weights
from genjax.parallel import multihost
from genjax.parallel.mesh import shard_batch
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState

MAX_TEST = 5000  # examples of each set in the two-sample tests, which run on one processor


def data_stream(examples: Examples, mesh: Mesh, size: int) -> Iterator[StreamBatch]:
    """Examples in order, in batches sharded over the mesh; each process loads only the rows of its devices.

    Args:
        examples: in the data's own units.
        mesh: the devices.
        size: batch size, a multiple of the mesh's batch shards.

    Yields:
        Global batches.
    """
    for batch, count in sweep(examples, size, *multihost.block(mesh, size)):
        shared = shard_batch(batch, mesh)
        yield StreamBatch(shared["x"], count, gather(shared["label"]) if "label" in shared else None)


def sample_stream(
    experiment: Experiment, state: TrainState, mesh: Mesh, num: int, seed: int
) -> Iterator[StreamBatch]:
    """Samples of the EMA parameters in the data's own units, sharded over the mesh.

    Args:
        experiment: objective, data and batch size.
        state: train state; its EMA parameters are used.
        mesh: the devices.
        num: number of samples.
        seed: see `sample_batches`.

    Yields:
        Global batches.
    """
    objective, data, size = experiment.objective, experiment.data, experiment.evaluation.batch_size
    batches = sample_batches(
        objective, data, state.ema, state.extra, mesh, seed=seed, num=num, batch_size=size, finite=True
    )
    for x, count, labels in batches:
        yield StreamBatch(in_units(data, x), count, labels)


def compare_sums(real: FeatureStatistics, made: FeatureStatistics) -> dict[str, float | str]:
    """All metrics that are functions of sums.

    Args:
        real: statistics of data.
        made: statistics of samples.

    Returns:
        "frechet" and, with too few examples for a covariance of full rank, the note "covariance"; "score",
        "label_accuracy", "diversity_rms".

    Raises:
        UserError: the dimensions differ, or there are too few examples.
    """
    found: dict[str, float | str] = {"frechet": frechet(made.moments, real.moments)}
    if singular := [name for name, s in (("data", real), ("samples", made)) if s.moments.singular]:
        counts = (
            f"{min(real.moments.count, made.moments.count)} examples of {len(real.moments.mean)} features"
        )
        found["covariance"] = f"singular ({' and '.join(singular)}: {counts}); the distance is biased upwards"
    if made.entropy:
        found["score"] = made.entropy.score
    if made.hits and made.hits.count:
        found["label_accuracy"] = made.hits.accuracy
    if made.scatter and real.scatter and len(ratios := scatter_ratios(real.scatter, made.scatter)):
        found["diversity_rms"] = float(ratios.mean())
    return found


def compare_pairs(
    real: FeatureStatistics, made: FeatureStatistics, *, k: int = 5, seed: int = 0
) -> dict[str, float | str]:
    """All pairwise metrics; empty without kept features.

    Args:
        real: statistics of data.
        made: statistics of samples, at an equal count for comparable numbers.
        k: neighbours of precision, recall, density and coverage.
        seed: seed of subsets and directions.

    Returns:
        "precision", "recall", "density", "coverage", "kernel_distance" with its "_std" over subsets (KID's cubic
        kernel, but inner products are divided by the data's mean square instead of the number of features),
        "mmd_gaussian" (sigma is the median distance of real examples, unscaled), "sliced_wasserstein", "c2st_accuracy",
        "one_nn_accuracy".

    Raises:
        UserError: the dimensions differ, there are too few examples, or real examples are all equal.
    """
    if not real.rows or not made.rows:
        return {}
    x, y = real.rows.features(), made.rows.features()
    gamma = len(x) / (np.trace(real.moments.scatter) + len(x) * (real.moments.mean**2).sum())
    found: dict[str, float | str] = {}
    found["kernel_distance"], found["kernel_distance_std"] = kernel_distance(
        y, x, Polynomial(gamma=float(gamma)), seed=seed
    )
    found |= prdc(x, y, k)
    few, some = (z[np.random.default_rng(seed).permutation(len(z))[:MAX_TEST]] for z in (x, y))
    found["mmd_gaussian"] = gaussian_mmd(y, x, sigma=RBF.median(few, (1.0,)).bandwidths[0], scale=1.0)
    found["sliced_wasserstein"] = sliced_wasserstein(y, x, seed=seed)
    found["c2st_accuracy"] = classifier_test(few, some, seed).accuracy
    found["one_nn_accuracy"] = one_nn_accuracy(few, some, seed)[1]
    return found


def compare_statistics(
    real: FeatureStatistics, made: FeatureStatistics, *, k: int = 5, seed: int = 0
) -> dict[str, float | str]:
    """`compare_sums` and `compare_pairs` of the same statistics.

    Args and Raises: see these.

    Returns:
        The numbers of both.
    """
    return compare_sums(real, made) | compare_pairs(real, made, k=k, seed=seed)


def stream_report(
    experiment: Experiment,
    state: TrainState,
    mesh: Mesh,
    network: FeatureNetwork,
    *,
    num: int,
    seed: int = 0,
    keep: bool = True,
    unseen: Examples | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Report:
    """Compares samples with the test split; a collective call of all processes of the mesh.

    There may be more samples than test examples. "frechet", "covariance", "score", "label_accuracy" and
    "diversity_rms" use all samples and all test examples. The same names with "_equal", all pairwise metrics, all
    "_reference" numbers and "frechet_ratio" (frechet_equal / frechet_reference) use equal counts of samples, test
    examples and reference examples, the first of each.

    Args:
        experiment: the trained experiment.
        state: train state; its EMA parameters are used.
        mesh: the devices.
        network: computes features.
        num: number of samples; also of test examples, at most all of them.
        seed: seed of the samples and of the choice of examples.
        keep: keep the features, for pairwise metrics.
        unseen: real data outside the network's fit and the test split: the reference, at most `num` of it.
        report: called with lines of progress.

    Returns:
        The report, the same on every process: "samples", "test_examples", "count" (of each set at equal counts), the
        network, whether its numbers are "comparable" with published ones, and the numbers of `compare_statistics`.

    Raises:
        UserError: fewer than two examples, or as `stream_prefix_statistics` and `compare_statistics`.
    """
    data: Data = experiment.data
    test = data.load("test")
    tested = min(num, len(test))
    equal = min(tested, tested if unseen is None else len(unseen))
    if equal < 2:
        raise UserError(f"num={num}: two or more samples and test examples are needed")
    report(
        f"streaming {num} samples and {tested} test examples through {network.name}; pairwise metrics and "
        f"comparisons with the reference use {equal} of each"
    )
    size = eval_batch_size(experiment, mesh)
    real = stream_prefix_statistics(network, mesh, data_stream(Subset(test, tested), mesh, size), equal, keep)
    made = stream_prefix_statistics(
        network, mesh, sample_stream(experiment, state, mesh, num, seed), equal, keep
    )
    whole, alike = compare_sums(real.whole, made.whole), compare_sums(real.first, made.first)
    words = (
        describe_split(data, "test")
        if tested == len(test)
        else f"first {tested} of the {describe_split(data, 'test')}"
    )
    found: Report = {
        "samples": num,
        "test_examples": tested,
        "count": equal,
        "features": network.name,
        **({"weights": describe_weights(network)} if network.digest else {}),
        "feature_dim": len(real.first.moments.mean),
        "comparable": comparable(network, num, tested, words, describe_split(data, "train")),
        "batches": math.ceil(num / size),
        "processes": jax.process_count(),
        **whole,
        **{f"{name}_equal": value for name, value in alike.items()},
        **compare_pairs(real.first, made.first, seed=seed),
    }
    if unseen is not None:
        other = stream_statistics(network, mesh, data_stream(Subset(unseen, equal), mesh, size), keep)
        usual = compare_statistics(real.first, other, seed=seed)
        found |= {f"{name}_reference": value for name, value in usual.items()}
        found["frechet_ratio"] = found["frechet_equal"] / found["frechet_reference"]
    return found
