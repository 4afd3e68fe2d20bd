"""How good a trained model is, for sets that no process can hold: samples and data go by in batches.

Every process draws its devices' part of each batch of samples, maps it to features where it is, and forgets it; so for
the data. What is left is merged over processes: O(d^2) numbers for what is a sum, and the features, n x d, for what
needs pairs. Features come from any `FeatureNetwork`, also FID's Inception; the numbers carry its name and the counts.

The numbers of `evaluate` are another protocol (folds of a training set in memory, see `metrics.report`): their values
are not compared with these. Those that end in "_reference" say how good is good: they compare with the test split, in
the place of samples, as many real examples. `stream_workdir` takes these from the training split, less those that the
network was fitted on; that the model was trained on them does not matter, as it has no part in these numbers.
"""

import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.core.errors import UserError
from genjax.data import Data, sweep
from genjax.data.examples import Examples, Some
from genjax.evaluation.held_out import eval_batch_size
from genjax.evaluation.likelihood import Report
from genjax.evaluation.sampling import gather, in_units, sample_batches
from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.distance import RBF, Polynomial, frechet, gaussian_mmd, kernel_distance
from genjax.metrics.distances.sliced import sliced_wasserstein
from genjax.metrics.distances.streaming import Seen, spread_ratios
from genjax.metrics.distances.two_sample import classifier_test, neighbour_accuracy
from genjax.metrics.features.extraction import FeatureNetwork, Part, look, look_first
from genjax.metrics.features.fid import comparable, describe, weights_words
from genjax.parallel import multihost
from genjax.parallel.mesh import shard_batch
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState

MOST = 5000  # examples of each set in the tests of two samples, which train and search on one processor


def data_stream(examples: Examples, mesh: Mesh, size: int) -> Iterator[Part]:
    """Examples in order, in batches split over the mesh; each process loads its devices' rows alone.

    Args:
        examples: in the data's own units.
        mesh: the devices.
        size: of a batch, which the mesh can split.
    """
    for batch, count in sweep(examples, size, *multihost.block(mesh, size)):
        shared = shard_batch(batch, mesh)
        yield Part(shared["x"], count, gather(shared["label"]) if "label" in shared else None)


def sample_stream(
    experiment: Experiment, state: TrainState, mesh: Mesh, num: int, seed: int
) -> Iterator[Part]:
    """Samples of the moving average in the data's own units, each process's on its own devices.

    Args:
        experiment: gives objective, data and the size of a batch.
        state: its moving average draws.
        mesh: the devices.
        num: how many.
        seed: see `sample_batches`.
    """
    objective, data, size = experiment.objective, experiment.data, experiment.evaluation.batch_size
    batches = sample_batches(
        objective, data, state.ema, state.extra, mesh, seed=seed, num=num, batch_size=size, finite=True
    )
    for x, count, labels in batches:
        yield Part(in_units(data, x), count, labels)


def compare_sums(real: Seen, made: Seen) -> dict[str, float | str]:
    """Every distance that sums allow.

    Args:
        real: of data.
        made: of samples.

    Returns:
        "frechet" and, where there are too few examples for a covariance of full rank, "covariance" in words; "score",
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
    if made.spread and real.spread and len(ratios := spread_ratios(real.spread, made.spread)):
        found["diversity_rms"] = float(ratios.mean())
    return found


def compare_pairs(real: Seen, made: Seen, *, k: int = 5, seed: int = 0) -> dict[str, float | str]:
    """Every distance that needs pairs; none where features are not kept.

    Args:
        real: of data.
        made: of samples; as many, for numbers that are to be compared with others.
        k: neighbours of precision, recall, density and coverage.
        seed: of subsets and directions.

    Returns:
        "precision", "recall", "density", "coverage", "kernel_distance" with its "_std" over subsets (the cubic kernel
        of inner products in units of the data's mean square, where KID's unit is the number of features),
        "mmd_gaussian" (sigma is the median distance of real examples, unscaled), "sliced_wasserstein", "told_apart",
        "neighbours_alike".

    Raises:
        UserError: the dimensions differ, there are too few examples, or real examples are all alike.
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
    few, some = (z[np.random.default_rng(seed).permutation(len(z))[:MOST]] for z in (x, y))
    found["mmd_gaussian"] = gaussian_mmd(y, x, sigma=RBF.median(few, (1.0,)).bandwidths[0], scale=1.0)
    found["sliced_wasserstein"] = sliced_wasserstein(y, x, seed=seed)
    found["told_apart"] = classifier_test(few, some, seed).accuracy
    found["neighbours_alike"] = neighbour_accuracy(few, some, seed)[1]
    return found


def compare_seen(real: Seen, made: Seen, *, k: int = 5, seed: int = 0) -> dict[str, float | str]:
    """What `compare_sums` and `compare_pairs` give, of the same two passes."""
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
    """Compares samples with the test split; all processes of the mesh do so together.

    Samples may be more than the test split has. Then "frechet", "covariance", "score", "label_accuracy" and
    "diversity_rms" are of all samples and of all test examples. The same names with "_equal", whatever needs pairs,
    whatever ends in "_reference" and "frechet_ratio" (frechet_equal / frechet_reference) are of as many samples, test
    examples and examples of the reference, the first of each.

    Args:
        experiment: a trained one.
        state: its moving average draws.
        mesh: the devices.
        network: gives features.
        num: of samples; and of test examples, at most all of these.
        seed: of the samples and of the choice of examples.
        keep: features, for the metrics that need pairs.
        unseen: real data that neither the network's fit nor the test split has: the reference, at most `num` of it.
        report: called with a line of progress.

    Returns:
        The same on every process: "samples", "test_examples", "count" (of each set in what is of equal counts), the
        network, whether its numbers are "comparable" with published ones, and what `compare_seen` gives.

    Raises:
        UserError: fewer than two examples are left, or as `look_first` and `compare_seen`.
    """
    data: Data = experiment.data
    test = data.load("test")
    tested = min(num, len(test))
    equal = min(tested, tested if unseen is None else len(unseen))
    if equal < 2:
        raise UserError(f"num={num}: two or more samples and test examples are needed")
    report(
        f"streaming {num} samples and {tested} test examples through {network.name}; pairs, and what is compared "
        f"with the reference, are of {equal} each"
    )
    size = eval_batch_size(experiment, mesh)
    real = look_first(network, mesh, data_stream(Some(test, tested), mesh, size), equal, keep)
    made = look_first(network, mesh, sample_stream(experiment, state, mesh, num, seed), equal, keep)
    whole, alike = compare_sums(real.whole, made.whole), compare_sums(real.first, made.first)
    words = (
        describe(data, "test") if tested == len(test) else f"first {tested} of the {describe(data, 'test')}"
    )
    found: Report = {
        "samples": num,
        "test_examples": tested,
        "count": equal,
        "features": network.name,
        **({"weights": weights_words(network)} if network.digest else {}),
        "feature_dim": len(real.first.moments.mean),
        "comparable": comparable(network, num, tested, words, describe(data, "train")),
        "batches": math.ceil(num / size),
        "processes": jax.process_count(),
        **whole,
        **{f"{name}_equal": value for name, value in alike.items()},
        **compare_pairs(real.first, made.first, seed=seed),
    }
    if unseen is not None:
        other = look(network, mesh, data_stream(Some(unseen, equal), mesh, size), keep)
        usual = compare_seen(real.first, other, seed=seed)
        found |= {f"{name}_reference": value for name, value in usual.items()}
        found["frechet_ratio"] = found["frechet_equal"] / found["frechet_reference"]
    return found
