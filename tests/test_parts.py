"""Parts by name: shipped ones and one's own, required fields, ambiguous names, and what a choice imports."""

import subprocess
import sys
import textwrap

import pytest
from PIL import Image

from genjax import networks, samplers
from genjax.adversarial.penalties import R1, Consistency, Lazy
from genjax.core import parts, tree
from genjax.core.errors import UserError
from genjax.core.overrides import overrides
from genjax.data import Dequantize, Digits, ImageFolder, Scale
from genjax.diffusion import interpolants, process
from genjax.distributions import priors
from genjax.distributions.flows import base, layers
from genjax.networks.layers.minibatch import WithMinibatch
from genjax.networks.transformers import experts
from genjax.samplers import edm, grids
from genjax.training import experiment, schedules
from genjax.training.optimizers import SGD

OWN = """
    import dataclasses
    import flax.linen as nn
    from genjax.data import Digits
    from genjax.samplers.grids import Grid, Uniform
    from genjax.samplers.scan import SamplerState
    from genjax.training import experiment

    @dataclasses.dataclass(frozen=True)
    class MySampler:
        steps: int = 3
        grid: Grid = Uniform()

        @property
        def evaluations(self):
            return self.steps

        def times(self, curve):
            return self.grid.times(curve, self.steps)

        def init(self, start):
            return SamplerState(x=start)

        def step(self, model, curve, state, now, later, rng):
            return SamplerState(x=model(state.x, now).x0)

    @dataclasses.dataclass(frozen=True)
    class Half:
        steps: int = 3

    class MyNet(nn.Module):
        width: int
        depth: int = 2

        @nn.compact
        def __call__(self, x, t=None, cond=None, *, out, train=False):
            return x

    @dataclasses.dataclass(frozen=True)
    class MyDigits(Digits):
        flipped: bool = True

    def get_experiment(variant=""):
        base = experiment.load("diffusion_digits")
        if variant == "own":
            objective = dataclasses.replace(base.objective, sampler=MySampler(7), net=MyNet(5))
            base = dataclasses.replace(
                base, objective=objective, data=dataclasses.replace(base.data, source=MyDigits())
            )
        return base
"""


@pytest.fixture
def own(tmp_path):
    """A config file with a sampler, a network and a source of its own; its variant `own` uses them."""
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(OWN))
    return path


@pytest.mark.parametrize("reopened", [False, True], ids=["config", "work directory"])
def test_own_and_shipped_parts_replace_each_other(own, tmp_path, reopened):
    def load(variant, words):
        if not reopened:
            return experiment.load(f"{own}:{variant}", words)
        workdir = tmp_path / "run"
        workdir.mkdir(exist_ok=True)
        experiment.save(experiment.load(f"{own}:{variant}"), str(own), workdir)
        return experiment.restore(workdir, words)

    words = [("objective.sampler", "DDIM"), ("objective.net", "UNet"), ("data.source", "Digits")]
    shipped = load("own", words)
    assert shipped.objective.sampler == samplers.DDIM()
    assert shipped.objective.net == networks.UNet()
    assert shipped.data.source == Digits()
    words = [("objective.sampler", "MySampler"), ("objective.sampler.steps", "4")]
    words += [("objective.net", "MyNet"), ("objective.net.width", "9"), ("data.source", "MyDigits")]
    mine = load("plain", words)
    assert type(mine.objective.sampler).__name__ == "MySampler"
    assert mine.objective.sampler.steps == 4
    assert (mine.objective.net.width, mine.objective.net.depth) == (9, 2)
    assert mine.data.source.flipped
    with pytest.raises(UserError, match=r"config\.objective\.net\.width has no default: set config"):
        load("plain", [("objective.net", "MyNet")])
    with pytest.raises(UserError, match="did you mean 'MySampler'"):
        load("plain", [("objective.sampler", "MySamplr")])
    with pytest.raises(UserError, match="or replace it") as caught:
        load("plain", [("objective.sampler", "Half")])
    assert "Half" not in str(caught.value).partition("one of")[2], "it has no step"


@pytest.fixture
def pictures(tmp_path):
    """A folder of two pictures."""
    for name in "ab":
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    return str(tmp_path)


def test_required_fields_are_set_by_later_flags(pictures):
    words = [("data.source", "ImageFolder"), ("data.source.path", pictures)]
    chosen = experiment.load("diffusion_digits", words)
    assert chosen.data.source == ImageFolder(pictures)
    assert list(overrides(experiment.load("diffusion_digits"), chosen)) == words
    with pytest.raises(UserError) as caught:
        experiment.load("diffusion_digits", words[:1])
    assert str(caught.value) == ("config.data.source.path has no default: set config.data.source.path=VALUE")
    words = [("objective.discriminator", "WithMinibatch"), ("objective.discriminator.net", "ConvEncoder")]
    words += [("objective.discriminator.net.channels", "8,8")]
    found = experiment.load("gan_digits", words).objective.discriminator
    assert found == WithMinibatch(networks.ConvEncoder((8, 8)))
    with pytest.raises(UserError, match=r"config\.objective\.discriminator\.net has no default"):
        experiment.load("gan_digits", words[:1])


def test_checks_of_a_part_made_by_name_run_once_its_fields_are_set():
    """`Lazy` requires a penalty; its check of `every` runs after the overrides, not on an incomplete part."""
    words = [("objective.penalties", "Lazy"), ("objective.penalties.0.penalty", "R1")]
    found = experiment.load("gan_digits", [*words, ("objective.penalties.0.every", "4")])
    assert found.objective.penalties == (Lazy(R1(), 4),)
    with pytest.raises(UserError, match="every=0 must be at least 1"):
        experiment.load("gan_digits", [*words, ("objective.penalties.0.every", "0")])


def test_an_optional_part_can_be_added_and_removed():
    added = experiment.load("gan_digits", [("objective.spectral", "SpectralNorm")]).objective
    assert type(added.spectral).__name__ == "SpectralNorm"
    removed = experiment.load("gan_digits:projection", [("objective.spectral", "none")]).objective
    assert removed.spectral is None
    assert experiment.load("gan_digits", [("objective.condition", "NONE")]).objective.condition is None
    with pytest.raises(UserError, match=r"did you mean 'SpectralNorm'"):
        experiment.load("gan_digits", [("objective.spectral", "SpectralNrm")])
    with pytest.raises(UserError, match="is a DDIM"):
        experiment.load("diffusion_digits", [("objective.sampler", "none")])


def test_tuples_of_parts_are_set_by_names():
    found = experiment.load("gan_digits", [("objective.penalties", "R1, Consistency")]).objective
    assert found.penalties == (R1(), Consistency())
    assert experiment.load("gan_digits", [("objective.penalties", "")]).objective.penalties == ()
    found = experiment.load("vae_digits", [("data.transforms", "Dequantize,Scale"), *SCALE]).data
    assert found.transforms == (Dequantize(), Scale(0.0, 17.0))
    with pytest.raises(UserError, match=r"config\.objective\.penalties\.1='R3' .* 'R2'"):
        experiment.load("gan_digits", [("objective.penalties", "R1,R3")])


SCALE = [("data.transforms.1.low", "0"), ("data.transforms.1.high", "17")]


@pytest.mark.parametrize(
    ("spec", "path", "name", "cls"),
    [
        ("diffusion_digits", "objective.sampler", "EDM", edm.EDM),
        ("diffusion_digits", "objective.process", "EDM", process.EDM),
        ("diffusion_digits", "objective.process", "Cosine", process.Cosine),
        ("gan_digits", "optimizer.generator.schedule", "Cosine", schedules.Cosine),
        ("vae_digits", "objective.prior", "Normal", priors.Normal),
        ("interpolant_moons", "objective.base", "Normal", interpolants.Normal),
        ("flow_digits", "objective.base", "Normal", base.Normal),
        ("flow_digits", "objective.base", "Uniform", base.Uniform),
        ("diffusion_digits", "objective.sampler.grid", "Uniform", grids.Uniform),
        ("vae_digits", "objective.prior", "Mixture", priors.Mixture),
        ("ar_bytes", "objective.net.experts", "Mixture", experts.Mixture),
        ("diffusion_mixture", "data.source", "Checkerboard", None),
        ("gan_digits", "objective.penalties.0", "Consistency", Consistency),
        ("gan_digits", "optimizer", "SGD", SGD),
    ],
)
def test_ambiguous_names_resolve_by_type(spec, path, name, cls):
    from genjax.data.sources import toys

    new = experiment.load(spec, [(path, name)])
    for step in path.split("."):
        new = new[step] if isinstance(new, dict) else new[int(step)] if step.isdigit() else getattr(new, step)
    assert type(new) is (cls or toys.Checkerboard)
    assert not parts.fits(
        layers.Checkerboard, tree.hints(experiment.load("diffusion_mixture").data)["source"]
    )


@pytest.mark.parametrize(
    ("spec", "path", "name", "words"),
    [
        ("diffusion_digits", "objective.sampler", "DPMSolver", "did you mean 'DPMSolverPP'"),
        ("diffusion_digits", "objective.sampler.grid", "Karas", "did you mean 'Karras'"),
        ("vae_digits", "objective.bound.penalty", "R1", "one of: .*Beta"),
        ("consistency_mixture", "objective.times", "IWAE", "one of: .*LogNormalSigma"),
        ("ar_digits", "objective.decoding.more", "Adam", "TopK"),
    ],
)
def test_a_part_of_another_type_is_refused_with_the_nearest_choices(spec, path, name, words):
    with pytest.raises(UserError, match=words) as caught:
        experiment.load(spec, [(path, name)])
    assert "\n" not in str(caught.value)
    assert name not in str(caught.value).partition("one of")[2].split(", ")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gan_digits", [("objective.penalties", "R2,Consistency"), ("objective.penalties.1.weight", "3.0")]),
        ("gan_digits", [("objective.penalties", "")]),
        ("gan_digits", [("objective.spectral", "SpectralNorm"), ("objective.augment", "Adaptive")]),
        ("gan_digits:projection", [("objective.spectral", "none")]),
        ("gan_digits", [("optimizer", "SGD"), ("optimizer.learning_rate", "0.5")]),
        ("gan_digits", [("objective.penalties", "Lazy"), ("objective.penalties.0.penalty", "R2")]),
        (
            "vae_digits",
            [
                ("objective.prior", "FlowPrior"),
                ("objective.prior.bijector", "Chain"),
                ("objective.prior.bijector.parts", "ActNorm,Elementwise"),
                ("objective.prior.bijector.parts.1.scalar", "Shift"),
            ],
        ),
    ],
)
def test_choices_by_name_survive_a_round_trip_through_overrides(spec, words):
    new = experiment.load(spec, words)
    found = list(overrides(experiment.load(spec), new))
    assert sorted(found) == sorted(words)
    assert experiment.load(spec, found) == new


COUNT = """
import sys
from experiments import dry_run
from genjax.training import experiment

def modules(*words):
    chosen, plain = experiment.load("gan_mixture", words), experiment.load("gan_mixture")
    dry_run.draw_tree(chosen, plain)
    return {name for name in sys.modules if name.startswith("genjax")}

plain = modules()
print(*sorted(modules(("optimizer", "SGD")) - plain))
print(*sorted(modules(("optimizer.schedule", "Cosine"), ("objective.game", "Wasserstein")) - plain))
"""


def test_a_choice_by_name_imports_its_own_module_and_sweeps_no_other_room():
    """Modules loaded by `--config.optimizer=SGD --dry_run` beyond those of `--dry_run`."""
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    more = [line.split() for line in done.stdout.split("\n")[:2]]
    assert more[0] == [], "SGD stands in the module of the optimizer that it replaces"
    assert set(more[1]) <= {"genjax.diffusion.process", "genjax.diffusion"}, "where another Cosine is"
