"""A stochastic interpolant from a ring of eight Gaussians to two moons; minutes on a CPU."""

from genjax.data import Data, Moons, Scale
from genjax.diffusion.coupling import MinibatchOT
from genjax.diffusion.interpolants import ODE, Bridge, Ring
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.networks import MLP
from genjax.objectives.diffusion.interpolant import Interpolant
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment() -> Experiment:
    """Neither end is noise; the coupling pairs nearby points, and the latent noise is small."""
    data = Data(Moons(), (Scale(-2.0, 2.0),))
    return Experiment(
        objective=Interpolant(
            net=MLP(width=128, depth=3),
            shape=data.shape,
            gamma=Bridge(0.1),
            base=Ring(modes=8, radius=1.0, std=0.1),
            coupling=MinibatchOT(),
            sampler=ODE(steps=25),
            likelihood=OdeLikelihood(steps=25, probes=0, low=1e-3, high=0.999, power=1.0),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(warmup=100)),
        steps=2000,
        batch_size=128,
        steps_per_call=20,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=5000, batch_size=1000, pictured=2000),
    )
