"""What is not finite is neither saved nor written; what is finished is evaluated; seeds and paths."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import genjax as gx
from experiments import cli
from genjax.api.train import train_and_evaluate
from genjax.core.errors import UserError
from genjax.core.row_keys import row_key
from genjax.core.types import root_key
from genjax.data import Data, Digits, Scale
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import load as load_experiment
from genjax.training.finite import check_state
from genjax.training.loop import prepare

CONFIG = '''
import dataclasses

import jax.numpy as jnp

import genjax as gx
from genjax.core.objective import Aux, Player, Sampling
from genjax.networks import MLP


@dataclasses.dataclass(frozen=True)
class Regression:
    """Reconstructs x; from step 3 on the gradient is NaN, the loss is not."""

    net: MLP
    condition = None
    sampling = Sampling("zeros")

    def init(self, key, batch):
        return {"net": self.net.init(key, batch["x"], out=(2,))}, {"count": jnp.zeros(())}

    def players(self):
        return {"net": Player(self.loss)}

    def loss(self, params, extra, batch, ctx):
        error = jnp.mean((self.net.apply(params["net"], batch["x"], out=(2,)) - 0.5 * batch["x"]) ** 2)
        zero, bad = 0.0 * params["net"]["params"]["out"]["bias"][0], ctx.step >= BAD
        return error + jnp.sqrt(jnp.where(bad, zero, 1.0)) - jnp.where(bad, 0.0, 1.0), Aux()

    def sample(self, params, extra, key, num, cond=None):
        return jnp.zeros((num, 2))


def get_experiment(variant="good"):
    data = gx.Data(gx.data.GaussianMixture(num=256, num_test=64), (gx.data.Scale(-2.0, 2.0),))
    sizes = gx.Evaluation(num=64, batch_size=64, pictured=4)
    return gx.Experiment(
        Regression(MLP(8, 1)), data, gx.optimizers.SGD(0.1), steps=6, batch_size=64, log_every=2, checkpoint_every=2,
        keep_last=1, evaluation=sizes,
    )
'''


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Path of the config by whether its gradients are finite."""
    folder = tmp_path_factory.mktemp("configs")
    for name, bad in (("good", 1000), ("bad", 3)):
        (folder / f"{name}.py").write_text(CONFIG.replace("BAD", str(bad)))
    return {name: str(folder / f"{name}.py") for name in ("good", "bad")}


@pytest.fixture(scope="module")
def experiment(configs):
    return load_experiment(configs["good"])


@pytest.fixture(scope="module")
def state(experiment):
    return prepare(experiment).make_state()


def test_a_state_with_one_bad_value_anywhere_is_refused(state):
    """Each array in turn, NaN or infinite at one place: the message has the player and the array."""
    check_state(state, None)
    leaves, tree = jax.tree.flatten(state)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(state)
    ]
    for number, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = leaf.ravel().at[-1].set(jnp.inf if number % 2 else jnp.nan).reshape(leaf.shape)
        broken = jax.tree.unflatten(tree, [*leaves[:number], bad, *leaves[number + 1 :]])
        with pytest.raises(UserError, match="NaN or infinite; checkpoint 4 is kept") as error:
            check_state(broken, 4)
        part, owner, *rest = path.split("/")
        assert f"{part} " in str(error.value)
        assert f"'{owner}': {'/'.join(rest)} has" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_nan_gradient_with_a_finite_loss_keeps_the_last_good_checkpoint(configs, tmp_path):
    workdir, experiment = tmp_path / "run", load_experiment(configs["bad"])
    for _ in range(2):  # the same command again: from the good checkpoint on
        with pytest.raises(UserError, match="step 4 is not saved: params of player 'net': params/out/bias"):
            gx.train(experiment, workdir, spec=configs["bad"])
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            step, state = checkpoints.restore(prepare(experiment).template())
        assert step == 2
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_finished_run_without_an_evaluation_is_evaluated(configs, experiment, tmp_path):
    once = functools.partial(train_and_evaluate, experiment, configs["good"], tmp_path / "run")
    once()
    report = tmp_path / "run" / "evaluation.json"
    first = report.read_text()
    report.unlink()
    assert once().taken == 0
    assert report.exists()
    kept = report.stat().st_mtime_ns
    once()
    assert report.stat().st_mtime_ns == kept
    assert '"held_out"' in first


def test_non_finite_samples_become_no_integers():
    data = Data(Digits(), (Scale(0.0, 16.0),))
    x = np.zeros((5, 8, 8, 1), np.float32)
    data.inverse(x)
    for value in (np.nan, np.inf, -np.inf):
        x[1, 2, 3], x[4, 0, 0] = value, value
        with pytest.raises(UserError, match="samples: 2 of 5 hold values that are NaN or infinite"):
            data.inverse(x)


def test_seeds_up_to_63_bits_have_different_keys():
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**62, 2**63 - 1]
    for key in (root_key, row_key):
        assert len({np.asarray(jax.random.bits(key(seed), (4,))).tobytes() for seed in seeds}) == len(seeds)
    for seed in seeds[:4]:
        plain = jax.random.key(np.uint32(seed))
        np.testing.assert_array_equal(jax.random.key_data(root_key(seed)), jax.random.key_data(plain))
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match=f"seed={seed} must be"):
            root_key(seed)


def test_a_large_seed_trains(experiment):
    one, other = (
        gx.train(dataclasses.replace(experiment, seed=seed)).state.params for seed in (2**40, 2**41)
    )
    assert not np.array_equal(one["net"]["params"]["out"]["kernel"], other["net"]["params"]["out"]["kernel"])


def test_the_home_folder_is_meant_by_a_tilde(configs, experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.split_overrides(["p", "--config.data.source.path=~/x"])[1] == [
        ("data.source.path", str(tmp_path / "x"))
    ]
    gx.train(experiment, "~/run", spec=configs["good"])
    assert int(gx.load("~/run").state.step) == 6
    assert (tmp_path / "run" / "experiment.json").exists()
    assert not (tmp_path / "~").exists()
