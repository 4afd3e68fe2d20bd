"""Names of classes: kept in experiment.json, asked for by name."""

import json

import numpy as np
import pytest
from PIL import Image

import genjax as gx
from genjax.core.errors import UserError
from genjax.data.source import HasClassNames
from genjax.training import experiment as experiments

CONFIG = """
import genjax as gx


def get_experiment(path):
    source = gx.data.ImageFolder(path, size=4, channels=1)
    data = gx.Data(source, (gx.data.Scale(0, 255),))
    net = gx.networks.MLP(8, 1)
    game = gx.objectives.GAN(net, net, data.shape, 2, condition=gx.conditioning.Labels(2))
    sizes = gx.Evaluation(num=16, batch_size=16, pictured=4)
    return gx.Experiment(game, data, gx.optimizers.SGD(0.1), steps=1, batch_size=8, evaluation=sizes)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for name in ("dog", "cat"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(12):
            image = Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8))
            image.save(folder / "data" / name / f"{number}.png")
    (folder / "config.py").write_text(CONFIG)
    spec = f"{folder / 'config.py'}:{folder / 'data'}"
    gx.train(experiments.load(spec), folder / "run", spec=spec)

    return gx.load(folder / "run")


def test_names_are_kept_with_the_run(run):
    assert json.loads((run.workdir / "experiment.json").read_text())["class_names"] == ["cat", "dog"]
    assert run.class_names == ("cat", "dog")
    assert isinstance(run.experiment.data.source, HasClassNames)


def test_a_name_draws_what_its_number_draws(run):
    for number, name in enumerate(("cat", "dog")):
        expected = gx.sample(run, 4, label=number)
        np.testing.assert_array_equal(gx.sample(run, 4, label=name), expected)
        np.testing.assert_array_equal(gx.sample(run, 4, label=str(number)), expected)
    assert not np.array_equal(gx.sample(run, 4, label="cat"), gx.sample(run, 4, label="dog"))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("cta", r"label=cta: did you mean 'cat'\? \(one of: cat, dog\)"),
        ("2", "label=2: this model has classes 0 to 1"),
    ],
)
def test_an_unknown_class_is_named_with_the_nearest(run, label, message):
    with pytest.raises(UserError, match=message):
        gx.sample(run, 1, label=label)


def test_a_config_that_needs_a_variant_says_so(run):
    with pytest.raises(UserError, match=r"config\.py needs a variant: write .*config\.py:VARIANT"):
        experiments.load(str(run.workdir.parent / "config.py"))


def test_training_says_what_it_read(run, capsys):
    gx.train(run.experiment)
    assert (
        "data: 24 pictures (22 train, 2 test), 2 classes (cat 12, dog 12); read as 4x4x1, 0…255\n"
        in capsys.readouterr().out
    )
