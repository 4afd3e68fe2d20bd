"""Description of an experiment before it runs: its tree, its parameters, the FLOPs of a training step."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from genjax.core import tree
from genjax.core.objective import Samples
from genjax.evaluation.evaluate import count_params
from genjax.evaluation.flops import count_flops
from genjax.training.experiment import Experiment, check_resume, restore, shipped
from genjax.training.loop import prepare


def draw_tree(experiment: Experiment, default: Experiment | None = None) -> str:
    """Renders the experiment tree: one line for each field with its type and the origin of its value.

    Args:
        experiment: the experiment.
        default: the config before overrides.

    Returns:
        Lines of text.
    """
    plain = dict(tree.leaves(tree.describe(default))) if default is not None else {}
    lines: list[str] = []

    def draw(name: str, value: Any, hint: Any, path: str, depth: int, usual: Any = None) -> None:
        indent = "  " * depth
        children: Mapping[str, Any] = {}
        if tree.is_node(value):
            children, known, defaults = tree.fields(value), tree.hints(value), tree.defaults(value)
        elif isinstance(value, Mapping) or (isinstance(value, tuple) and any(map(tree.is_node, value))):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            children, known, defaults = {str(key): child for key, child in items}, {}, {}
        if children or tree.is_node(value):
            lines.append(f"{indent}{name}: {type(value).__name__ if tree.is_node(value) else ''}".rstrip())
            for child_name, child in children.items():
                child_path = f"{path}.{child_name}".lstrip(".")
                usual = defaults.get(child_name, tree)
                draw(child_name, child, known.get(child_name, Any), child_path, depth + 1, usual)
            return
        kind = type(value).__name__ if hint is Any else tree.type_name(hint)
        described = dict(tree.leaves(tree.describe(value), path))
        overridden = default is not None and any(plain.get(leaf) != item for leaf, item in described.items())
        origin = "overridden" if overridden else "default" if value == usual else "config"
        lines.append(f"{indent}{name} = {value!r}  ({kind}, {origin})")

    draw("experiment", experiment, Experiment, "", 0)
    return "\n".join(lines)


def list_configs() -> str:
    """One line for each shipped config: its name and the first line of its docstring."""
    lines = []
    for name, path in shipped().items():
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines.append(f"{name:24} {text.splitlines()[0] if text else ''}")
    return "\n".join(lines)


def describe(experiment: Experiment, default: Experiment) -> str:
    """The tree, the number of parameters of each player, and the FLOPs of one step.

    Args:
        experiment: the experiment.
        default: the config before overrides.

    Returns:
        Lines of text.
    """
    run = prepare(experiment)
    state, batch = run.template(), jax.eval_shape(lambda: run.raw(0))
    lines = [draw_tree(experiment, default)]
    for name, params in state.params.items():
        lines.append(f"parameters of {name}: {count_params(params):,}")
    flops = count_flops(run.step, state, batch)
    lines.append(f"FLOPs of a step (matrix products and convolutions): {flops:,}")
    epochs = experiment.steps * experiment.batch_size / len(run.batches.examples)
    lines.append(
        f"devices: {dict(run.mesh.shape)}; {len(run.batches.examples):,} examples, {epochs:.1f} epochs"
    )
    return "\n".join(lines)


def describe_workdir(workdir: Path, overrides: Iterable[tuple[str, str]] = ()) -> str:
    """The tree of a trained run and how it draws samples, without reading data or checkpoints.

    Args:
        workdir: work directory of a run.
        overrides: (path, value) overrides that do not affect training.

    Returns:
        Lines of text.

    Raises:
        UserError: there is no run, or an override affects training.
    """
    trained, chosen = restore(workdir), restore(workdir, overrides)
    check_resume(trained, chosen, workdir)
    sampler = str(chosen.objective.sampling) if isinstance(chosen.objective, Samples) else "none"
    return f"{draw_tree(chosen, trained)}\nsampling: {sampler}"
