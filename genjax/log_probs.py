"""How likely a split is under a model: nats, bits per dimension or perplexity, in words that say what they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from genjax import distributed
from genjax.data import sweep
from genjax.data.examples import Examples, Some
from genjax.data.toys import Toy
from genjax.experiment import Experiment
from genjax.held_out import eval_batch_size
from genjax.metrics.likelihood import summarise
from genjax.objective import HasLogProb
from genjax.parallel import shard_batch
from genjax.sampling import gather
from genjax.step import TrainState
from genjax.types import named

Report = dict[str, Any]


def mean_and_error(name: str, values: np.ndarray) -> Report:
    """The mean under `name`, and its standard error."""
    return {name: float(values.mean()), f"{name}_error": float(values.std(ddof=1) / len(values) ** 0.5)}


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

    root, values, dims, true = named(jax.random.key(experiment.evaluation.seed), "likelihood"), [], [], []
    examples: Examples = data.load(split)
    if experiment.evaluation.likelihoods:
        examples = Some(examples, experiment.evaluation.likelihoods)
    for call, (batch, count) in enumerate(sweep(examples, size, *distributed.block(mesh, size))):
        shared = shard_batch(batch, mesh)
        rows, sizes = log_prob(state.ema, state.extra, shared, jax.random.fold_in(root, call))
        values.append(gather(rows)[:count])
        dims.append(gather(sizes)[:count])
        if isinstance(data.source, Toy):
            true.append(data.source.log_density(gather(shared["x"])[:count]))
    result = summarise(np.concatenate(values), np.concatenate(dims), objective.log_prob_kind, data.log_det())
    text = {
        "nats_per_token": result.nats_per_dim,
        "nats_per_token_error": result.nats_per_dim_error,
        "perplexity": result.perplexity,
    }
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
        return numbers | text
    if isinstance(data.source, Toy):
        excess = np.concatenate(true) - np.concatenate(values) - data.log_det()
        return numbers | {"entropy": data.source.entropy()} | mean_and_error("excess_nats", excess)
    return numbers
