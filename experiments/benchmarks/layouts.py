"""Memory and communication of an experiment on its mesh: bytes per device, and collectives of the compiled step."""

from typing import Any

import jax

from genjax.evaluation.collectives import collectives, table
from genjax.parallel.placement import bytes_held
from genjax.training.compile import compile_step
from genjax.training.experiment import Experiment
from genjax.training.loop import prepare


def report(experiment: Experiment) -> None:
    """Prints the bytes of the train state, from its arrays, and the collectives of one step."""
    run = prepare(experiment)
    state = run.make_state()
    parts = {
        "parameters": state.params,
        "optimizer state": state.opt_state,
        "EMA": state.ema,
        "extra": state.extra,
    }
    print(f"mesh {dict(run.mesh.shape)}, {run.mesh.size} {jax.devices()[0].platform} devices")
    for name, part in parts.items():
        whole, held = bytes_held(part)
        if whole:
            print(f"{name:20} {whole / 1e6:10.3f} MB, {held / 1e6:10.3f} MB per device ({held / whole:.3f})")
    step: Any = compile_step(run.step, run.mesh, run.shardings, kind="jit")
    for line in table(collectives(step.lower(state, run.raw(0)).compile().as_text())):
        print(line)
