"""The PyTorch twins have as many parameters as our networks and reach the same loss."""

import numpy as np
import pytest
from twins import CASES, dit, flow, unet

from experiments.benchmarks.comparing import time_steps
from genjax.evaluation.evaluate import count_params
from genjax.training.loop import prepare

pytestmark = pytest.mark.peers
SMALL = {
    "unet, three levels": lambda: unet(16, (1, 2, 2), 2, (1,), 2, (8, 8, 3), 8),
    "dit": lambda: dit(32, 2, 2, (8, 8, 4), 8),
    "coupling": lambda: flow(size=6, count=2, width=16, batch=8),
    "maf": lambda: flow("maf", size=6, count=2, width=16, batch=8),
}
WHOLE = {name: make for name, make in CASES.items() if name not in ("maf", "dit-b2", "unet-cifar")}
OWN = {
    name: make for name, make in WHOLE.items() if not name.startswith("gpt")
}  # nanoGPT is not in this repository


@pytest.mark.parametrize("name", [*OWN, *SMALL])
def test_twins_have_the_same_number_of_parameters(name):
    case = (OWN | SMALL)[name]()
    shapes = prepare(case.experiment).template()
    assert count_params(shapes.params) - case.less == case.twin("").parameters


@pytest.mark.parametrize("name", ["vae", "flow-toy", "unet, three levels", "dit"])
def test_both_sides_reach_the_same_loss_on_one_batch(name):
    case = (CASES | SMALL)[name]()
    run, twin = prepare(case.experiment), case.twin("")
    state, batch = run.make_state(), run.batch(0, 1)
    state, _ = time_steps(run, state, batch, 150)
    losses = []
    for _ in range(20):
        state, metrics = run.compiled(state, batch, False)
        losses.append(next(float(value) for key, value in metrics.items() if key.endswith("/loss")))
    for _ in range(150):
        twin.step()
    theirs = [float(twin.step()) for _ in range(20)]
    assert np.mean(losses) == pytest.approx(np.mean(theirs), rel=0.15)
