"""Normalizing flows of points in the plane with known entropy; a minute on 2 cores, half an hour for cnf.

flow_toys:MODEL[-TOY] with MODEL of spline (the default), coupling, maf, iaf, cnf and TOY of moons (the default),
mixture, rings, spirals, checkerboard. `./launch/local.sh sample --workdir=runs/flow_toys --num=2000 --trace=7` plots
the base grid after each layer, and the density.
"""

from genjax.core.errors import UserError, nearest
from genjax.data import Checkerboard, Data, GaussianMixture, Moons, Rings, Scale, Spirals
from genjax.distributions.flows import models
from genjax.distributions.flows.bijector import Bijector, Chain
from genjax.distributions.flows.continuous import Continuous
from genjax.distributions.flows.linear import ActNorm
from genjax.distributions.flows.scalar import Spline
from genjax.networks import MADE, MLP
from genjax.objectives.flow import Flow
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine

NUM = 100_000  # training points: with fewer, overfitting is as large as the excess to be measured
TOYS = {
    "moons": Data(Moons(NUM), (Scale(-2.0, 2.0, -2.0, 2.0),)),
    "mixture": Data(GaussianMixture(NUM), (Scale(-2.0, 2.0, -2.0, 2.0),)),
    "rings": Data(Rings(NUM), (Scale(-3.0, 3.0, -2.0, 2.0),)),
    "spirals": Data(Spirals(NUM), (Scale(-3.0, 3.0, -2.0, 2.0),)),
    "checkerboard": Data(Checkerboard(NUM), (Scale(-4.0, 4.0, -2.0, 2.0),)),
}
SMALL = MLP(width=64, depth=1, zero_out=True)
MODELS: dict[str, Bijector] = {
    "spline": models.coupling(SMALL, Spline(bins=16, bound=4.0), count=4),
    "coupling": models.coupling(SMALL, count=8),
    "maf": models.autoregressive(MADE(width=64, depth=1), count=12),
    "iaf": models.autoregressive(MADE(width=64, depth=1), count=12, fast=True),
    "cnf": Chain((ActNorm(), Continuous(MLP(width=64, depth=2, zero_out=True, time_scale=10.0)))),
}


def get_experiment(variant: str = "spline-moons") -> Experiment:
    """The negative log-likelihood converges to the known entropy."""
    model, _, toy = variant.partition("-")
    toy = toy or "moons"
    for name, known in ((model, MODELS), (toy, TOYS)):
        if name not in known:
            raise UserError(f"flow_toys has no '{name}': {nearest(name, known)}")
    data = TOYS[toy]
    return Experiment(
        objective=Flow(MODELS[model], data.shape),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100), clip=1.0),
        steps=2500,
        batch_size=256,
        steps_per_call=20,
        checkpoint_every=1250,
        sample_every=1250,
        evaluation=Evaluation(num=2000, batch_size=1000, pictured=2000),
    )
