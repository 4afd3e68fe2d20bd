"""What `pip install .` gives: one folder, one command; and the lists of requirements."""

import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import architecture
import pytest

from experiments import __main__ as command
from genjax.core.errors import UserError
from genjax.core.extras import require
from genjax.training import experiment

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def names(path: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return [re.split(r"[<>=!\[ ]", line)[0].lower().replace("_", "-") for line in lines if line]


def test_the_list_of_packages_is_that_of_the_folders():
    folders = {path.parent.relative_to(ROOT) for path in architecture.modules().values()}
    folders |= {folder.parent for folder in folders if folder.parent.name == "configs"}
    dotted = {".".join(folder.parts) for folder in folders}
    expected = {f"genjax.{name}" if name.startswith("experiments") else name for name in dotted}
    assert SETUPTOOLS["packages"] == sorted(expected)


def test_no_index_address_stands_in_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    address = re.compile(
        r"--(extra-)?index" r"-url|--find" r"-links|download\.pytorch|pypi\.org/simple|/simple/"
    )
    for path in map(ROOT.joinpath, tracked.split()):
        if (
            path.suffix in (".md", ".txt", ".toml", ".sh", ".py", "")
            and path.is_file()
            and path.name != Path(__file__).name
        ):
            assert not address.search(path.read_text(errors="replace")), path


def test_requirements_have_no_duplicates_and_the_constraints_hold_them_all():
    files = sorted({*ROOT.glob("requirements*.txt")} - {ROOT / "requirements-constraints.txt"})
    listed = [name for path in files for name in names(path)]
    assert sorted({*listed}) == sorted(listed)
    pinned = names(ROOT / "requirements-constraints.txt")
    assert "genjax-research" not in pinned
    extras = SETUPTOOLS["dynamic"]["optional-dependencies"]
    tested = [SETUPTOOLS["dynamic"]["dependencies"], extras["test"]]
    wanted = {name for part in tested for file in part["file"] for name in names(ROOT / file)}
    assert wanted <= {*pinned}
    used = {file for part in extras.values() for file in part["file"]}
    assert used == {path.name for path in files} - {"requirements.txt"}


def test_a_missing_extra_is_named_in_one_line(monkeypatch):
    assert require("json.decoder", "test", "this").JSONDecoder
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.delitem(sys.modules, "tokenizers.models", raising=False)
    with pytest.raises(
        UserError, match=r"\Atext needs tokenizers, of the extra 'multimodal': pip install [^\n]*\Z"
    ):
        require("tokenizers.models", "multimodal", "text")
    monkeypatch.setitem(sys.modules, "outer", types.ModuleType("outer"))
    with pytest.raises(UserError, match="this needs outer, of the extra 'science'"):
        require("outer.inner", "science", "this")


@pytest.mark.parametrize(("cores", "devices"), [(1, 1), (2, 2), (3, 2), (7, 4), (64, 8)])
def test_the_command_sets_the_environment_of_the_launcher(cores, devices):
    env = command.environment("train", {"PYTHONPATH": "/a"}, cores)
    assert env["XLA_FLAGS"] == f" --xla_force_host_platform_device_count={devices}"
    assert env["PYTHONPATH"] == f"{ROOT}{os.pathsep}/a"
    launcher = (ROOT / "launch" / "local.sh").read_text()
    assert "export " + " ".join(f"{name}={value}" for name, value in command.MALLOC.items()) in launcher
    given = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    assert command.environment("train", given, cores)["XLA_FLAGS"] == given["XLA_FLAGS"]
    assert "XLA_FLAGS" not in command.environment("sweep", {}, cores)


def test_the_command_knows_the_programs():
    for verb in command.verbs():
        assert "cli.run(main" in (ROOT / "experiments" / f"{verb}.py").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "trian"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no verb 'trian'; usage: genjax VERB")
    assert done.stderr.count("\n") == 1


def test_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment.find_config("gan_digits").is_file()


DECOY = 'raise SystemExit("the wrong folder")\n'


@pytest.mark.slow
def test_the_installed_command_works_in_a_folder_with_its_own_experiments(tmp_path):
    """A wheel in an environment that sees the packages of this one."""
    site, here = tmp_path / "site", tmp_path / "here"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    copied = tmp_path / "source"  # a build writes beside its sources
    subprocess.run(["git", "clone", "--quiet", ROOT, copied], check=True)
    subprocess.run([*pip, "--target", site, copied], check=True, capture_output=True)
    top = {path.name for path in site.iterdir()} - {"bin", "genjax"}
    assert len(top) == 1
    assert all(name.endswith(".dist-info") for name in top)
    for name in ("experiments", "launch"):
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text(DECOY)
        (here / name / "train.py").write_text(DECOY)

    def genjax(*words: str) -> str:
        env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        done = subprocess.run(
            [sys.executable, site / "bin" / "genjax", *words],
            cwd=here,
            env=env | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "gan_digits" in genjax("train", "--list")
    printed = genjax("suite", "--dry_run", "--seconds=5")
    assert "genjax.experiments train --config=" in printed
    small = ["--config.steps=4", "--config.evaluation.num=32", "--config.evaluation.pictured=4"]
    genjax("train", "--config=gan_mixture", *small)
    genjax("sample", "--workdir=runs/gan_mixture", "--num=5")
    genjax("sweep", "--config=gan_mixture", "--over=seed=0", *small)
    assert (here / "runs" / "sweep" / "gan_mixture,seed=0" / "evaluation.json").exists()
