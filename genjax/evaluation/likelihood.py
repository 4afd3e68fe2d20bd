"""Likelihood of a split under a model: nats, bits per dimension or perplexity, with the kind of the number.

The objective declares the kind (`log_prob_kind`): exact, a lower bound, or an ODE estimate with solver and steps. For
integer data, a density bounds the probabilities only if uniform noise of one level is added to the data (Theis et al.
2016); a density at the integers themselves is unbounded, and bounds no probability.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from genjax.core.objective import HasLogProb, dequantization_of, elements_of, levels_of
from genjax.core.row_keys import row_key, rows_from
from genjax.core.types import named
from genjax.data import Binarize, Data, Dequantize, sweep
from genjax.data.examples import Examples, Subset
from genjax.data.sources.toys import Toy
from genjax.evaluation.held_out import PARAMETERS, eval_batch_size
from genjax.evaluation.kinds import PERPLEXITY, Unit, evaluation_of
from genjax.evaluation.sampling import gather
from genjax.evaluation.text import scored_bytes
from genjax.metrics.likelihood import Likelihood, summarise
from genjax.parallel import multihost
from genjax.parallel.mesh import shard_batch
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState

Report = dict[str, Any]
ADDED = "uniform noise of one level, added to the data: a lower bound for the integers"


def unit_of(data: Data) -> Unit:
    """Unit of the likelihood of a kind of data: perplexity of text, nats of points, bits per dimension."""
    return evaluation_of(data).unit


def dequantization(objective: Any, data: Data) -> str:
    """Describes how integer data are dequantized.

    Args:
        objective: an objective with `log_prob`.
        data: the data, with levels and transforms.
    """
    batch = {"x": jax.ShapeDtypeStruct((1, *data.shape), data.source.dtype)}
    seen = jax.eval_shape(lambda batch: data.forward(batch, jax.random.key(0), False), batch)["x"]
    if noise := dequantization_of(objective):
        return f"{noise} noise of one level, within the model"
    if any(isinstance(transform, Dequantize) for transform in data.transforms):
        return ADDED
    if jnp.issubdtype(seen.dtype, jnp.integer):
        return "none: each integer has a probability"
    if any(isinstance(transform, Binarize) for transform in data.transforms):
        return "none: each bit of the binarized data has a probability"
    if not data.levels:
        return "none: the data are continuous, this is a density"
    if levels_of(objective):
        return "none: each integer's cell has a probability"
    return "none, though the data are integers: a density at them, which bounds no probability"


def scaling(data: Data) -> str:
    """Describes the scale of the log-probability."""
    changes = [type(transform).__name__ for transform in data.transforms]
    if not (log_det := data.log_det()):
        return "the data's own units, which the model sees"
    return f"the data's own units: log |det| = {log_det:.6g} nats of {', '.join(changes)} is added"


def describe_kind(kind: str, dequantized: str) -> str:
    """The kind of the number for the data: the density's own, or a bound if noise is added to the data.

    Args:
        kind: `log_prob_kind` of the model's density.
        dequantized: result of `dequantization`.
    """
    if dequantized != ADDED:
        return kind
    if kind.startswith("exact"):
        return f"lower bound through uniform dequantization, density {kind}"
    return f"{kind}{'' if 'lower bound' in kind else ' of a lower bound'} through uniform dequantization"


def kind_of(report: Mapping[str, Any]) -> str:
    """`describe_kind` of a `likelihood_report`; "" for an empty report."""
    return describe_kind(report.get("log_prob_kind", ""), report.get("dequantization", ""))


def sign_of(kind: str, unit: Unit) -> str:
    """ "≤ " or "≥ " for a bound; "" for an ODE estimate, even of a bound, as its error has either sign.

    Args:
        kind: result of `describe_kind`.
        unit: unit of the number after the sign.
    """
    return f"{unit.bound} " if kind.startswith("lower bound") else ""


def summary_line(result: Likelihood, unit: Unit, split: str, dequantized: str) -> str:
    """One line: value, standard error, unit, kind and number of examples.

    Args:
        result: the likelihood.
        unit: unit of the value.
        split: split of the examples.
        dequantized: result of `dequantization`.

    Returns:
        The line.
    """
    value, error = getattr(result, unit.name), getattr(result, f"{unit.name}_error")
    kind = describe_kind(result.kind, dequantized)
    return (
        f"{sign_of(kind, unit)}{value:.{unit.digits}f} ± {error:.{unit.digits}f} {unit.words} ({kind}; ± is the "
        f"standard error over {result.count} {split} examples)"
    )


def mean_and_error(name: str, values: np.ndarray) -> Report:
    """The mean under `name`, and its standard error."""
    return {name: float(values.mean()), f"{name}_error": float(values.std(ddof=1) / len(values) ** 0.5)}


def likelihood_report(
    experiment: Experiment,
    state: TrainState,
    mesh: Mesh,
    split: str = "test",
    report: Callable[[str], None] = lambda line: None,
) -> Report:
    """Likelihood of a split in the data's own units, with the kind of the number.

    Args:
        experiment: the experiment; its objective has `log_prob`.
        state: train state; its EMA parameters are evaluated.
        mesh: the devices.
        split: split of the data.
        report: called with a line of progress about every ten seconds.

    Returns:
        Report for JSON. If the true density is known, also "entropy" of the data and "excess_nats", the mean of
        log p_data(x) - log p_model(x) on the same points: an estimate of KL(data || model).
    """
    objective, data = experiment.objective, experiment.data
    assert isinstance(objective, HasLogProb)
    size = eval_batch_size(experiment, mesh)

    @jax.jit
    def log_prob(params: Any, extra: Any, batch: Any, key: Any) -> Any:
        seen = data.forward(batch, named(key, "data"), False)
        return objective.log_prob(params, extra, seen, named(key, "log_prob")), elements_of(objective, seen)

    root = named(row_key(experiment.evaluation.seed), "likelihood")
    values, dims, true, sizes_in_bytes = [], [], [], []
    examples: Examples = data.load(split)
    if experiment.evaluation.likelihoods:
        examples = Subset(examples, experiment.evaluation.likelihoods)
    said = time.monotonic()
    for call, (batch, count) in enumerate(sweep(examples, size, *multihost.block(mesh, size))):
        shared = shard_batch(batch, mesh)
        rows, sizes = log_prob(state.ema, state.extra, shared, rows_from(root, call * size))
        values.append(gather(rows)[:count])
        dims.append(gather(sizes)[:count])
        if unit_of(data) == PERPLEXITY:
            sizes_in_bytes.append(scored_bytes(data, gather(shared["x"])[:count], dims[-1]))
        if isinstance(data.source, Toy):
            true.append(data.source.log_density(gather(shared["x"])[:count]))
        if time.monotonic() - said > 10.0:
            report(f"likelihood: {call * size + count}/{len(examples)} examples")
            said = time.monotonic()
    result = summarise(np.concatenate(values), np.concatenate(dims), objective.log_prob_kind, data.log_det())
    dequantized = dequantization(objective, data)
    numbers: Report = {
        "summary": summary_line(result, unit_of(data), split, dequantized),
        "log_prob_kind": result.kind,
        "dequantization": dequantized,
        "scale": scaling(data),
        "parameters_of": PARAMETERS,
        "nats": result.nats,
        "nats_error": result.nats_error,
        "bits_per_dim": result.bits_per_dim,
        "bits_per_dim_error": result.bits_per_dim_error,
        "examples": result.count,
        "split": split,
    }
    if unit_of(data) == PERPLEXITY:
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
