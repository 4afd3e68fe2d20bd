"""Every command in README.md and docs/ runs: up to `--dry_run`, or whole where that takes seconds.

A command that names a flag, verb, config, variant, field or file that does not exist fails. Programs run in this
process, one after the other in a folder of their own, so that a command finds the work directories of those before it;
a run that no command makes, like `runs/gan_digits`, is an untrained one of the config of that name.
"""

import dataclasses
import importlib
import json
import re
import shutil
from pathlib import Path

import documented
import launching
import numpy as np
import pytest
from documented import FLAGS, ROOT

from experiments import dry_run
from genjax.core.errors import UserError
from genjax.data.text import token_files
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import gpt2
from genjax.training import experiment
from genjax.training.workdir import open_workdir

VERBS = re.search(r'^verbs="(.*)"', (ROOT / "launch" / "common.sh").read_text(), re.MULTILINE)[1].split()
OPENED = ("sample", "evaluate", "stream", "vary", "edit")  # verbs that read --workdir
DESCRIBE = dry_run.describe
NAMED = {  # runs whose names are no configs'
    "mine": ("gan_digits", ()),
    "small": ("ar_bytes", ()),
    "more": ("vae_digits", ()),
    "suite-digits/vae": ("vae_digits", ()),
    "DIR": ("vae_digits", (("objective.latent", "2"),)),
}
TEXT = "".join(
    f"{first}{middle}{last}\n" for first in "ABCDEFGH" for middle in "aeiou" for last in ("n", "ra", "lis")
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The files and folders that the commands name."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "corpus").mkdir()
    for name in ("FILE", "FILE.txt", "corpus.txt"):
        (folder / name).write_text(TEXT * 20)
    (folder / "corpus" / "a.txt").write_text("".join(f"document {k}\n\n" for k in range(2000)))
    token_files.write([str(folder / "FILE.txt")], "byte", folder / "TOKENS", separator="\n")
    rng = np.random.default_rng(0)
    sound = {"audio": rng.integers(-9, 9, 8000).astype(np.int16), "offsets": np.arange(0, 8001, 400)}
    np.savez(folder / "FILE.npz", **sound, label=np.arange(20) % 10)
    for page in documented.PAGES:
        for block in documented.blocks(page, "python"):
            if "def get_suite()" in block:
                (folder / "my_suite.py").write_text(block)
            if page.name == "README.md" and "def get_experiment(" in block:
                (folder / "path" / "to").mkdir(parents=True)
                (folder / "path" / "to" / "vae_gan.py").write_text(block)
    return folder


@pytest.fixture(scope="module")
def model(files) -> None:
    """FOLDER: a small GPT-2 in Hugging Face's layout, with a tokenizer."""
    import jax
    import jax.numpy as jnp

    from genjax.api.convert import train_bpe
    from genjax.data import TokenizedText

    folder = files / "FOLDER"
    folder.mkdir()
    train_bpe(files / "FILE.txt", 280, folder / "tokenizer.json")
    size = len(TokenizedText("", str(folder / "tokenizer.json")).vocabulary)
    net = gpt2(1, 16, 2, places=32)
    params = net.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), out=size)
    huggingface.write(folder, net, params, {"eos_token_id": 0})


def spec_of(name: str) -> str:
    """The config and variant of a run that is named as `train` names it: CONFIG or CONFIG-VARIANT."""
    for config in sorted(experiment.shipped(), key=len, reverse=True):
        if name == config:
            return config
        if name.startswith(f"{config}-"):
            variant = name.removeprefix(f"{config}-")
            return f"{config}:{f'runs/{variant}' if variant in experiment.shipped() else variant}"
    raise AssertionError(f"no config makes runs/{name}")


def make_run(workdir: str) -> None:
    """An untrained run, unless an earlier command has made it."""
    path = Path(workdir)
    assert not path.is_absolute(), path
    if (path / experiment.DESCRIPTION).exists():
        return
    if path.name.startswith("suite-"):
        return make_run(f"{workdir}/vae")
    name = workdir.removeprefix("runs/")
    spec, overrides = NAMED[name] if name in NAMED else (spec_of(name), ())
    spec = spec.replace("ar_shakespeare:names", "ar_shakespeare:FILE.txt")
    for inner in re.findall(r"runs/\w+", spec):
        make_run(inner)
    chosen = experiment.load(spec, overrides)
    open_workdir(chosen, spec, path)
    report = {"step": chosen.steps, "parameters": 1, "seconds_to_train": 1.0, "trained_on": "a machine"}
    (path / "evaluation.json").write_text(json.dumps(report))


def make_runs(verb: str, words: list[str]) -> None:
    """The untrained runs that a command reads."""
    for word in words:
        flag, _, value = word.partition("=")
        reads = flag in ("--run", "--draft", "--beside") or (flag == "--workdir" and verb in OPENED)
        reads = reads or (
            flag == "--workdir" and verb == "convert" and not any("--source" in w for w in words)
        )
        if reads:
            make_run(value.partition("@")[0])
        if flag == "--config" and ":runs/" in value:
            make_run(value.partition(":")[2])
        if flag == "--config" and value in ("vq_prior_digits", "ar_lora"):
            make_run({"vq_prior_digits": "runs/vqvae_digits", "ar_lora": "runs/ar_bytes"}[value])


def trained_into(words: list[str]) -> None:
    """Makes the work directory of a `train` command, or resumes it as `train` does; below this folder always."""
    given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    overrides = [(name.removeprefix("config."), value) for name, value in given.items() if "config." in name]
    if "workdir" in given:
        spec = given.get("config", "diffusion_digits")
        open_workdir(experiment.load(spec, overrides), spec, Path(given["workdir"].lstrip("/")))


def run_program(verb: str, words: list[str]) -> None:
    """Runs one program: whole where it takes seconds, else with --dry_run."""
    make_runs(verb, words)
    if verb in ("prepare", "results") or (verb == "convert" and runs_whole(words)):
        documented.run(verb, words)
    elif verb == "convert":
        with documented.program(verb):
            documented.cli.parse([verb, *words])
    else:
        documented.run(verb, [*words, "--dry_run"])
        if verb == "train":
            trained_into(words)


def runs_whole(words: list[str]) -> bool:
    """Whether the inputs of a conversion are here: not those of PyTorch's pickles, nor of an untrained run."""
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    if "source" in given:
        return "workdir" in given
    return "tokens" in given or (Path(given["workdir"]) / "checkpoints").exists()


def run_command(words: list[str]) -> None:
    """Runs one command of the documentation.

    Raises:
        AssertionError: it is of no known form, or its launcher refuses it.
        UserError: its program refuses it.
    """
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:2] == ["python", "-m"]:
        return run_program(words[2].removeprefix("experiments."), words[3:])
    if words[0] == "genjax":
        return run_program(words[1], words[2:])
    launcher = re.fullmatch(r"\./launch/(\w+)\.sh", words[0])
    assert launcher, f"neither a launcher nor a program: {' '.join(words)}"
    place = next(k for k, word in enumerate(words[1:], 1) if not word.startswith("--"))
    options, verb, rest = (
        [word for word in words[1:place] if word != "--dry_run"],
        words[place],
        words[place + 1 :],
    )
    if launcher[1] != "local" or options or verb not in VERBS:
        done = launching.launch(launcher[1], *options, "--dry_run", verb, *rest)
        assert done.returncode == 0, done.stderr
    if verb in VERBS:
        run_program(verb, rest)
    for word in rest if verb == "test" else []:
        assert not word.endswith(".py") or word.startswith("--") or (ROOT / word).is_file(), word


def tree_only(chosen: experiment.Experiment, default: experiment.Experiment) -> str:
    return dry_run.draw_tree(chosen, default)


def with_step(chosen: experiment.Experiment, default: experiment.Experiment) -> str:
    """The description of `--dry_run`, without the parts that need TFDS's files or more devices than 8."""
    tree = tree_only(chosen, default)
    if "TFDS" in tree:
        return tree
    return DESCRIBE(dataclasses.replace(chosen, mesh="data:-1"), default)


def run_page(page: Path, files: Path, folder: Path) -> None:
    """Runs the commands of a page, in order, in a folder with the files that they name."""
    for path in files.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    for command in documented.commands(page):
        for words in documented.alternatives(command):
            try:
                run_command(words)
            except (UserError, SystemExit) as error:
                raise AssertionError(f"{' '.join(words)}\n{error}") from error


pages = pytest.mark.parametrize(
    "page",
    [page for page in documented.PAGES if documented.commands(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)


@pages
def test_commands(page, files, model, tmp_path, monkeypatch):
    """Of `train --dry_run` only the tree: no parameters and no FLOPs of a step, which take seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "describe", tree_only)
    run_page(page, files, tmp_path)


@pytest.mark.slow
@pages
def test_commands_with_their_parameters_and_steps(page, files, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "describe", with_step)
    run_page(page, files, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "./launch/local.sh trian --config=gan_digits",
        "./launch/local.sh train --config=gan_digitz",
        "./launch/local.sh train --config=gan_digits:lsgann",
        "./launch/local.sh train --config=gan_digits --config.objective.nett=1",
        "./launch/local.sh train --config=gan_digits --stepps=3",
        "./launch/local.sh train --config=ar_gpt2:FILE",
        "./launch/local.sh sample --workdir=runs/gan_digits --config.objective.sampler.steps=3",
        "./launch/local.sh edit --workdir=runs/gan_digits --task=inpaint",
        "./launch/local.sh edit --workdir=runs/pix2pix_digits --task=traverse",
        "./launch/local.sh vary --workdir=runs/diffusion_digits --over=objective.sampler=DDIMM",
        "./launch/local.sh vary --workdir=runs/diffusion_digits --over=seed=1,2",
        "./launch/local.sh test tests/test_no_such_file.py",
        "./launch/slurm.sh --node=4 train --config=gan_digits",
        "python -m experiments.evaluate --workdir=runs/gan_digits --inceptoin=x",
        "pip install genjax",
    ],
)
def test_wrong_commands_fail(command, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "describe", tree_only)
    shutil.copy(files / "FILE", tmp_path)
    with pytest.raises((UserError, AssertionError, ModuleNotFoundError)):
        run_command(command.split())


def test_a_work_directory_is_not_trained_on_another_text(files, model, tmp_path, monkeypatch):
    """One text, then another: the recipe that the documentation must not have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "describe", tree_only)
    run = "--config=ar_gpt2:FOLDER --workdir=runs/gpt2"
    shutil.copytree(files / "FOLDER", tmp_path / "FOLDER")
    shutil.copy(files / "FILE.txt", tmp_path)
    open_workdir(experiment.load("ar_gpt2:FOLDER"), "ar_gpt2:FOLDER", Path("runs/gpt2"))
    with pytest.raises(UserError, match="another experiment"):
        run_command(["./launch/local.sh", "train", *run.split(), "--config.data.source.path=FILE.txt"])


def test_optional_parts_are_expanded():
    assert documented.alternatives(["a[:b|:c]", "[--d=e]"]) == [["a"], ["a:b"], ["a:c"], ["a", "--d=e"]]


def test_other_programs_keep_their_flags():
    """Flags of a program that another test imported are set aside, as often as programs run, and come back."""
    importlib.import_module("experiments.evaluate")
    before = {name: FLAGS.find_module_defining_flag(name) for name in FLAGS}
    for _ in range(2):
        with documented.program("sample"):
            assert FLAGS.find_module_defining_flag("num") == "experiments.sample"
        assert {name: FLAGS.find_module_defining_flag(name) for name in FLAGS} == before
