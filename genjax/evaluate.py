"""How good a trained model is: its samples against the data, and its likelihood if it has one.

Every number is of the moving average of the parameters. What goes into it is reported with it: samples, sampler,
seed, steps, examples seen, parameters.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from genjax import distributed, tree
from genjax.data import Data, GaussianMixture, sweep
from genjax.data.examples import Examples, Some
from genjax.data.pairs import halves
from genjax.data.toys import Toy
from genjax.experiment import Experiment
from genjax.exports import decode
from genjax.metrics.collapse import collapse, twin_report
from genjax.metrics.documents import novelty
from genjax.metrics.likelihood import summarise
from genjax.metrics.modes import Mixture, mode_report
from genjax.metrics.report import Judge, Settings, make_judge
from genjax.metrics.translation import translation_report
from genjax.objective import HasLogProb, HasTranslation, Objective
from genjax.parallel import batch_shards, shard_batch
from genjax.sampling import draw_samples, gather
from genjax.step import TrainState, Transform, make_eval_step
from genjax.texts import scored_bytes, text_numbers
from genjax.types import Metrics, named

Report = dict[str, Any]


def count_params(params: Any) -> int:
    """Number of values in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def whole(data: Data, split: str) -> dict[str, np.ndarray]:
    """All examples of a split that fits in memory, in the data's own units."""
    examples = data.load(split)
    return examples[np.arange(len(examples))]


def mean_and_error(name: str, values: np.ndarray) -> Report:
    """The mean under `name`, and its standard error."""
    return {name: float(values.mean()), f"{name}_error": float(values.std(ddof=1) / len(values) ** 0.5)}


def eval_batch_size(experiment: Experiment, mesh: Mesh) -> int:
    """The evaluation's batch size, rounded up to what the devices can share."""
    shards = batch_shards(mesh)
    return -(-experiment.evaluation.batch_size // shards) * shards


@functools.lru_cache(maxsize=8)
def compile_losses(objective: Objective, transform: Transform) -> Callable[..., Metrics]:
    """Compiles `make_eval_step`'s function, once for all looks at a run."""
    return jax.jit(make_eval_step(objective, transform))


def held_out_losses(
    experiment: Experiment, state: TrainState, mesh: Mesh, split: str = "test"
) -> dict[str, float]:
    """Every player's loss and metrics on data that it was not trained on, without dropout or augmentation.

    Args:
        experiment: gives the players.
        state: its moving average is evaluated.
        mesh: the devices.
        split: of the data.

    Returns:
        Means over whole batches, by "player/metric"; compare with training's to see overfitting.
    """
    step = compile_losses(experiment.objective, experiment.data.forward)
    root, rows = named(jax.random.key(experiment.evaluation.seed), "held out"), []
    size = eval_batch_size(experiment, mesh)
    whole_batches = sweep(experiment.data.load(split), size, *distributed.block(mesh, size))
    for call, (batch, count) in enumerate(whole_batches):
        if count == size or call == 0:
            key = jax.random.fold_in(root, call)
            rows.append(jax.device_get(step(state.ema, state.extra, shard_batch(batch, mesh), key)))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def likelihood_report(experiment: Experiment, state: TrainState, mesh: Mesh, split: str = "test") -> Report:
    """Nats and bits per dimension of a split, in the data's own units, saying what kind of number it is.

    Args:
        experiment: its objective has `log_prob`.
        state: its moving average is evaluated.
        mesh: the devices.
        split: of the data.

    Returns:
        Numbers and words, for json. Where the density is known, also the data's entropy and how many nats the
        model's -log p is above the true one's on the same points: an estimate of KL(data || model).
    """
    objective, data = experiment.objective, experiment.data
    assert isinstance(objective, HasLogProb)
    size = eval_batch_size(experiment, mesh)

    whole_shape = int(np.prod(data.shape))
    elements = getattr(objective, "elements", lambda batch: jnp.full(len(batch["x"]), whole_shape))

    @jax.jit
    def log_prob(params: Any, extra: Any, batch: Any, key: Any) -> Any:
        seen = data.forward(batch, named(key, "data"), False)
        return objective.log_prob(params, extra, seen, named(key, "log_prob")), elements(seen)

    root = named(jax.random.key(experiment.evaluation.seed), "likelihood")
    values, dims, true, sizes_in_bytes = [], [], [], []
    examples: Examples = data.load(split)
    if experiment.evaluation.likelihoods:
        examples = Some(examples, experiment.evaluation.likelihoods)
    for call, (batch, count) in enumerate(sweep(examples, size, *distributed.block(mesh, size))):
        shared = shard_batch(batch, mesh)
        rows, sizes = log_prob(state.ema, state.extra, shared, jax.random.fold_in(root, call))
        values.append(gather(rows)[:count])
        dims.append(gather(sizes)[:count])
        if data.kind == "text":
            sizes_in_bytes.append(scored_bytes(data, gather(shared["x"])[:count], dims[-1]))
        if isinstance(data.source, Toy):
            true.append(data.source.log_density(gather(shared["x"])[:count]))
    result = summarise(np.concatenate(values), np.concatenate(dims), objective.log_prob_kind, data.log_det())
    numbers: Report = {
        "log_prob_kind": result.kind,
        "nats": result.nats,
        "nats_error": result.nats_error,
        "bits_per_dim": result.bits_per_dim,
        "bits_per_dim_error": result.bits_per_dim_error,
        "examples": result.count,
        "split": split,
    }
    if data.kind == "text":
        by_byte = summarise(np.concatenate(values), np.concatenate(sizes_in_bytes), result.kind)
        return numbers | {
            "nats_per_token": result.nats_per_dim,
            "nats_per_token_error": result.nats_per_dim_error,
            "perplexity": result.perplexity,
            "perplexity_error": result.perplexity_error,
            "bits_per_byte": by_byte.bits_per_dim,
            "bits_per_byte_error": by_byte.bits_per_dim_error,
        }
    if isinstance(data.source, Toy):
        excess = np.concatenate(true) - np.concatenate(values) - data.log_det()
        return numbers | {"entropy": data.source.entropy()} | mean_and_error("excess_nats", excess)
    return numbers


def translations(
    experiment: Experiment, state: TrainState, mesh: Mesh, num: int = 0, seed: int = 0
) -> dict[str, np.ndarray]:
    """What a translator makes of test examples.

    Args:
        experiment: its objective translates.
        state: its moving average is used.
        mesh: the devices.
        num: of the first test examples; 0 for all.
        seed: of its noise.

    Returns:
        As `HasTranslation.translate`, in the data's own units and the order of that docstring.
    """
    objective, data = experiment.objective, experiment.data
    assert isinstance(objective, HasTranslation)
    size, examples = eval_batch_size(experiment, mesh), data.load("test")
    num = min(num or len(examples), len(examples))

    @jax.jit
    def translate(params: Any, extra: Any, batch: Any, key: Any) -> Any:
        seen = data.forward(batch, named(key, "data"), False)
        return objective.translate(params, extra, seen, named(key, "translate"))

    root, parts = named(jax.random.key(seed), "translations"), []
    batches = sweep(examples, size, *distributed.block(mesh, size))
    for call, (batch, count) in enumerate(batches):
        if call * size < num:
            shown = translate(
                state.ema, state.extra, shard_batch(batch, mesh), jax.random.fold_in(root, call)
            )
            parts.append({name: gather(rows)[:count] for name, rows in shown.items()})
    order = [name + ending for ending in ("", "_reversed") for name in ("input", "output", "target", "back")]
    rows = {name: np.concatenate([part[name] for part in parts])[:num] for name in order if name in parts[0]}
    return {name: data.inverse(x) for name, x in rows.items()}


def distances(judge: Judge, data: Data, samples: np.ndarray, labels: np.ndarray | None) -> Report:
    """How far samples are from a data set's, and in words what they miss.

    Args:
        judge: has the examples that samples are compared with.
        data: of images or points; a mixture's modes are counted.
        samples: in the data's own units.
        labels: the classes that they were asked for, if any.

    Returns:
        "distribution" (of samples that are all equal only their twins: there is nothing to compare), "modes" of a
        mixture, "collapse".
    """
    found: dict[str, float | str] = dict(twin_report(samples, judge.test.x))
    same = bool((samples == samples[:1]).all())
    if not same:
        found |= judge.report(samples, labels)
    numbers: Report = {"distribution": found}
    if isinstance(data.source, GaussianMixture):
        numbers["modes"] = mode_report(samples, Mixture(*data.source.modes()))
    words = "all samples are equal" if same else collapse(found | numbers.get("modes", {}))
    return numbers | {"collapse": words or "none"}


def evaluate(
    experiment: Experiment, state: TrainState, mesh: Mesh, report: Callable[[str], None] = lambda line: None
) -> tuple[Report, np.ndarray]:
    """Judges a trained model.

    Args:
        experiment: says how many samples, from which seed.
        state: its moving average is evaluated.
        mesh: the devices.
        report: called with a line of progress now and then.

    Returns:
        (numbers and words for json, samples in the data's own units); distances on the first process alone.
    """
    objective, data, how = experiment.objective, experiment.data, experiment.evaluation
    num = how.num
    samples, labels = draw_samples(
        objective,
        data,
        state.ema,
        state.extra,
        mesh,
        seed=how.seed,
        num=num,
        batch_size=how.batch_size,
        report=lambda done: report(f"evaluate: {done}/{num} samples"),
    )
    step = int(state.step)
    numbers: Report = {
        "step": step,
        "parameters_of": "moving average (EMA)",
        "parameters": count_params(state.params),
        "batch_size": experiment.batch_size,
        "examples_seen": step * experiment.batch_size,
        "samples": num,
        "sample_seed": how.seed,
    }
    free = {*tree.fields(objective)} - {*tree.untunable(objective)}
    numbers |= {f"objective.{name}": tree.describe(getattr(objective, name)) for name in sorted(free)}
    report("evaluate: held-out losses")
    numbers["held_out"] = held_out_losses(experiment, state, mesh)
    if isinstance(objective, HasLogProb) and objective.log_prob_kind:
        report("evaluate: likelihood")
        numbers["likelihood"] = likelihood_report(experiment, state, mesh)
    if isinstance(objective, HasTranslation):
        report("evaluate: translations")
        known = halves(whole(data, "train")["x"]) if getattr(data.source, "paired", True) else None
        numbers["translation"] = translation_report(
            translations(experiment, state, mesh, seed=how.seed), known, data.levels
        )
    if documents := getattr(data.source, "documents", None):
        numbers["documents"] = novelty(decode(data, samples), documents("train"), documents("test"))
    if data.kind == "text" and jax.process_index() == 0:
        report("evaluate: text")
        numbers |= text_numbers(data, samples, how.seed)
    if data.kind == "audio" and num < Settings.least:
        report(f"evaluate: no distances of {num} sounds, at least {Settings.least} are needed")
    elif data.kind != "text" and jax.process_index() == 0:
        report("evaluate: distances")
        train, test = whole(data, "train"), whole(data, "test")
        judge = make_judge(
            train=train["x"],
            test=test["x"],
            train_labels=train.get("label"),
            test_labels=test.get("label"),
            seed=how.seed,
            settings=Settings(rate=data.rate),
        )
        numbers |= distances(judge, data, samples, labels)
    return numbers, samples
