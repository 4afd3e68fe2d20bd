"""How good a trained model is, for sets that no process can hold: samples and data go by in batches.

Every process draws its devices' part of each batch of samples, maps it to features where it is, and forgets it; so for
the data. What is left is merged over processes: O(d^2) numbers for what is a sum, and the features, n x d, for what
needs pairs. Features come from any `FeatureNetwork`; the numbers carry its name and the counts.

The numbers of `evaluate` are another protocol (folds of a training set in memory, see `metrics.report`): their values
are not compared with these. Samples beside data of the same count, unseen by model and network, say how good is good:
those are the ones that end in "_reference".
"""

import math
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from genjax import distributed
from genjax.data import Data, sweep
from genjax.data.examples import Examples, Some
from genjax.errors import UserError
from genjax.experiment import Experiment
from genjax.held_out import eval_batch_size
from genjax.log_probs import Report
from genjax.metrics.coverage import prdc
from genjax.metrics.distance import RBF, Polynomial, frechet, gaussian_mmd, kernel_distance
from genjax.metrics.extraction import FeatureNetwork, Part, look
from genjax.metrics.sliced import sliced_wasserstein
from genjax.metrics.streaming import Seen, spread_ratios
from genjax.metrics.two_sample import classifier_test, neighbour_accuracy
from genjax.parallel import shard_batch
from genjax.sampling import gather, in_units, sample_batches
from genjax.step import TrainState

MOST = 5000  # examples of each set in what is trained, or sorted, on one processor


def data_stream(examples: Examples, mesh: Mesh, size: int) -> Iterator[Part]:
    """Examples in order, in batches split over the mesh; each process loads its devices' rows alone.

    Args:
        examples: in the data's own units.
        mesh: the devices.
        size: of a batch, which the mesh can split.
    """
    for batch, count in sweep(examples, size, *distributed.block(mesh, size)):
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


def compare_seen(real: Seen, made: Seen, *, k: int = 5, seed: int = 0) -> dict[str, float | str]:
    """Every distance that two passes allow.

    Args:
        real: of data.
        made: of samples; as many, for numbers that are to be compared with others.
        k: neighbours of precision, recall, density and coverage.
        seed: of subsets and directions.

    Returns:
        Of sums: "frechet" and, where there are too few examples for a covariance of full rank, "covariance" in words;
        "score", "label_accuracy", "diversity_rms". Of kept features: "precision", "recall", "density", "coverage",
        "kernel_distance" with its "_std" over subsets, "mmd_gaussian" (sigma is the median distance of real examples,
        unscaled), "sliced_wasserstein", "told_apart", "neighbours_alike".

    Raises:
        UserError: the dimensions differ, there are too few examples, or real examples are all alike.
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
    if not real.rows or not made.rows:
        return found
    x, y = real.rows.features(), made.rows.features()
    gamma = len(x) / (np.trace(real.moments.scatter) + len(x) * (real.moments.mean**2).sum())
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
) -> Report:
    """Compares samples with the test split; all processes of the mesh do so together.

    Args:
        experiment: a trained one.
        state: its moving average draws.
        mesh: the devices.
        network: gives features.
        num: of samples and of test examples, at most all of these; the same number of both.
        seed: of the samples and of the choice of examples.
        keep: features, for the metrics that need pairs.
        unseen: data that neither the network nor the test split has: the reference, as many of it.

    Returns:
        The same on every process: network, counts and what `compare_seen` gives, also with "_reference".

    Raises:
        UserError: fewer than two examples are left, or as `look` and `compare_seen`.
    """
    data: Data = experiment.data
    test = data.load("test")
    num = min(num, len(test), len(unseen) if unseen is not None else len(test))
    if num < 2:
        raise UserError(f"num={num}: two or more samples and test examples are needed")
    size = eval_batch_size(experiment, mesh)
    real = look(network, mesh, data_stream(Some(test, num), mesh, size), keep)
    made = look(network, mesh, sample_stream(experiment, state, mesh, num, seed), keep)
    report: Report = {
        "samples": num,
        "features": network.name,
        "feature_dim": len(real.moments.mean),
        "count": num,
        "batches": math.ceil(num / size),
        "processes": jax.process_count(),
        **compare_seen(real, made, seed=seed),
    }
    if unseen is not None:
        other = look(network, mesh, data_stream(Some(unseen, num), mesh, size), keep)
        report |= {f"{name}_reference": value for name, value in compare_seen(real, other, seed=seed).items()}
        report["frechet_ratio"] = report["frechet"] / report["frechet_reference"]
    return report
