"""An experiment is one frozen dataclass tree; the tree is the config.

A config file is a Python file with `get_experiment(variant)`. The command line selects it, optionally a variant,
and overrides leaves: `--config=FILE[:variant] --config.a.b=value`. A work directory holds `experiment.json` and
a copy of the config file, from which the same tree is rebuilt without the command line.
"""

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import optax

from genjax.core import tree
from genjax.core.errors import UserError, nearest
from genjax.core.files import write_all
from genjax.core.metric import Metric
from genjax.core.objective import Objective, Weights
from genjax.core.sharding_rules import Rule
from genjax.core.tree import tunable
from genjax.data import Data
from genjax.data.loading import Input
from genjax.data.source import HasClassNames, capability
from genjax.training import description, format_1
from genjax.training.description import CLASS_NAMES, CONFIG_MODULE, DESCRIPTION, FORMAT
from genjax.training.optimizers import Adam, Optimizer

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = (
    _PACKAGE / "experiments"
)  # where `pip install` puts the programs; in a clone they are beside genjax
PROGRAMS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "experiments"
CONFIGS = PROGRAMS / "configs"
CONFIG_COPY = "config.py"  # in the work directory
CHECKPOINTS, BEST = "checkpoints", "best"


@dataclass(frozen=True)
class Evaluation:
    """Sizes and seeds of the evaluation of a run.

    Attributes:
        num: samples to draw and compare with the data.
        batch_size: samples drawn, or examples evaluated, in one compiled call.
        seed: of the samples and of the feature networks.
        pictured: samples in the images saved during and after training.
        likelihoods: size of the fixed random subset whose likelihood is computed; 0 for the whole split.
    """

    num: int = 1000
    batch_size: int = 250
    seed: int = 0
    pictured: int = 100
    likelihoods: int = 0


@dataclass(frozen=True)
class Monitor:
    """Periodic evaluation of samples during training; see `genjax.evaluation.monitor`.

    Attributes:
        every: steps between evaluations; 0 for none.
        num: samples per evaluation.
        metric: selects the best state, such as "frechet_ratio", "recall", "modes_covered".
        largest: whether larger values of the metric are better.
        patience: evaluations without improvement after which training stops; 0 never stops.
    """

    every: int = 0
    num: int = 500
    metric: str = "frechet_ratio"
    largest: bool = False
    patience: int = 0


@dataclass(frozen=True)
class Experiment:
    """The objective, the data, and how to train.

    A resumed run may change the tunable fields; all others, those of objective and data included, must be unchanged.

    Attributes:
        objective: parameters and losses.
        data: a source and its transforms.
        optimizer: one for all players, or one for each by name.
        steps: length of the run, at which schedules end. Tunable.
        batch_size: examples in one step, over all devices and hosts.
        seed: of parameters, data order and all noise.
        ema: largest decay of the exponential moving average of parameters.
        accumulate: micro-batches that each step's batch is split into.
        steps_per_call: steps in one compiled call; more than 1 is faster where a step takes less than a millisecond.
            Tunable.
        mesh: devices by axis, like "data:-1" or "data:2,fsdp:4". Tunable.
        rules: sharding rules of parameters, applied before the networks' own. Tunable.
        zero1: split optimizer state and moving average over `data` (ZeRO-1). Tunable.
        compile: "jit" partitions the global computation, "pmap" runs a replica on each device. Tunable.
        log_every: steps between logged metrics. Tunable.
        checkpoint_every: steps between checkpoints. Tunable.
        keep_last: number of newest checkpoints that are kept. Tunable.
        keep_every: checkpoints of steps divisible by this are never deleted; 0 for none. Tunable.
        sample_every: steps between saved samples; 0 for none before the end. Tunable.
        evaluation: of the trained model. Tunable.
        monitor: periodic evaluation during training. Tunable.
        input: how batches reach the devices. Tunable.
        metrics: further metrics of samples, also of one's own; under "metrics" in evaluation.json. Tunable.
        initial: where the parameters of step 0 come from, such as another run or a folder in Hugging Face's layout;
            None for the objective's own initialisation. Tunable.
    """

    objective: Objective
    data: Data
    optimizer: Optimizer | Mapping[str, Optimizer] = field(default_factory=Adam)
    steps: int = tunable(10_000)
    batch_size: int = 128
    seed: int = 0
    ema: float = 0.999
    accumulate: int = 1
    steps_per_call: int = tunable(1)
    mesh: str = tunable("data:-1")
    rules: tuple[Rule, ...] = tunable(())
    zero1: bool = tunable(False)
    compile: Literal["jit", "pmap"] = tunable("jit")
    log_every: int = tunable(100)
    checkpoint_every: int = tunable(1000)
    keep_last: int = tunable(2)
    keep_every: int = tunable(0)
    sample_every: int = tunable(0)
    evaluation: Evaluation = tunable(Evaluation())
    monitor: Monitor = tunable(Monitor())
    input: Input = tunable(Input())
    metrics: tuple[Metric, ...] = tunable(())
    initial: Weights | None = tunable(None)

    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """One optax transformation for each player; the identity for those updated in closed form.

        Raises:
            UserError: optimizers are given by name, and the names differ from the players'.
        """
        players = self.objective.players()
        closed = {name: optax.identity() for name, player in players.items() if player.update}
        trained = [name for name in players if name not in closed]
        if not isinstance(self.optimizer, Mapping):
            return {name: self.optimizer.build(self.steps) for name in trained} | closed
        for name in {*trained} ^ {*self.optimizer}:
            raise UserError(
                f"optimizer is given for {sorted(self.optimizer)}; the players are {sorted(trained)}: '{name}'"
            )
        return {name: self.optimizer[name].build(self.steps) for name in trained} | closed


def check(experiment: Experiment) -> Experiment:
    """Validates the numbers of an experiment, and returns it.

    Raises:
        UserError: a field is out of range; the message names it and the range.
    """
    least = {"steps": 1, "batch_size": 1, "accumulate": 1, "steps_per_call": 1, "log_every": 1, "seed": 0}
    least |= {"checkpoint_every": 1, "keep_last": 1, "keep_every": 0, "sample_every": 0}
    for name, smallest in least.items():
        if getattr(experiment, name) < smallest:
            raise UserError(f"config.{name}={getattr(experiment, name)} must be at least {smallest}")
    for name, smallest in {"every": 0, "num": 32, "patience": 0}.items():
        if getattr(experiment.monitor, name) < smallest:
            raise UserError(
                f"config.monitor.{name}={getattr(experiment.monitor, name)} must be at least {smallest}"
            )
    for name, smallest in {"workers": 0, "ahead": 1, "resident_mib": 0}.items():
        if getattr(experiment.input, name) < smallest:
            raise UserError(
                f"config.input.{name}={getattr(experiment.input, name)} must be at least {smallest}"
            )
    if not 0.0 <= experiment.ema < 1.0:
        raise UserError(f"config.ema={experiment.ema} must be in [0, 1)")
    return experiment


def shipped() -> dict[str, Path]:
    """The configs of this repository, by name."""
    return {path.stem: path for path in sorted(CONFIGS.rglob("*.py"), key=lambda path: path.stem)}


def find_config(name: str) -> Path:
    """Finds a config file by path, or a shipped config by name.

    Raises:
        UserError: there is none; suggests the nearest shipped name.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.stem in shipped() and (path.parent == Path() or (PROGRAMS.parent / path).is_file()):
        return shipped()[path.stem]
    raise UserError(f"no config '{name}': {nearest(path.stem, shipped())}")


def load_module(path: Path, old: bool = False) -> ModuleType:
    """Executes a config file and caches the module by the hash of its contents.

    Args:
        path: of the file.
        old: whether it may be of format 1, and import genjax's modules by their names of that time.

    Returns:
        The module; its `__source__` is the text of the file.

    Raises:
        UserError: the file cannot be read, has a syntax error, or imports something of genjax by an old name.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read config {path}: {error.strerror}") from None
    name = CONFIG_MODULE + hashlib.sha256(text).hexdigest()[:12]
    if name in sys.modules:
        return sys.modules[name]
    for folder in (path.parent.resolve(), *sorted({found.parent for found in shipped().values()})):
        # A config may import files beside it; its copy in a work directory may import shipped configs.
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module)["__source__"] = text.decode()
    sys.modules[name] = module
    try:
        _execute(spec.loader, module, old)
    except Exception as error:
        del sys.modules[name]
        if message := _config_error(error):
            raise UserError(f"config {path}{message}") from error
        raise
    return module


def _execute(loader: Loader, module: ModuleType, old: bool) -> None:
    try:
        loader.exec_module(module)
    except ImportError as error:
        if not (old and format_1.present_name(error)):
            raise
        with format_1.old_names():
            loader.exec_module(module)


def _config_error(error: Exception) -> str:
    """What is wrong with a config file, if that is its syntax or a name of format 1; else ""."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}: {error.msg}"
    new = format_1.present_name(error) if isinstance(error, ImportError) else ""
    return f": {error}; it is {new} now" if new else ""


def load(spec: str, overrides: Iterable[tuple[str, str]] = ()) -> Experiment:
    """Builds the experiment of a config with overrides.

    Args:
        spec: "FILE[:variant]" or a shipped config's name.
        overrides: (dotted path of the field, value as text), applied in order.

    Returns:
        The experiment.

    Raises:
        UserError: there is no such config or variant, or an override does not fit.
    """
    name, _, variant = spec.partition(":")
    path = find_config(name)
    module = load_module(path)
    make = vars(module).get("get_experiment")
    if make is None:
        raise UserError(f"config {path} has no function get_experiment()")
    parameters = inspect.signature(make).parameters.values()
    takes_variant = bool(parameters)
    if not variant and any(parameter.default is parameter.empty for parameter in parameters):
        raise UserError(f"config {path} needs a variant: write {name}:VARIANT")
    if variant and not takes_variant:
        raise UserError(f"config {path} has no variants: leave out ':{variant}'")
    return _overridden(make(variant) if takes_variant and variant else make(), overrides, (module,))


def _overridden(
    experiment: Experiment, overrides: Iterable[tuple[str, str]], own: Sequence[ModuleType]
) -> Experiment:
    for field_path, text in overrides:
        experiment = tree.override(experiment, field_path, text, own)
    return check(tree.complete(experiment))


def describe(experiment: Experiment, spec: str) -> dict[str, Any]:
    """The contents of experiment.json: the format's version, the config's name, the tree, and names of classes."""
    named = capability(experiment.data.source, HasClassNames)
    names = {CLASS_NAMES: list(named.class_names)} if named and named.class_names else {}
    return {"format": FORMAT, "config": spec, "experiment": tree.describe(experiment)} | names


def save(experiment: Experiment, spec: str, workdir: Path) -> None:
    """Writes experiment.json and a copy of the config file, if there is one, into a work directory.

    Args:
        experiment: with its overrides applied.
        spec: "FILE[:variant]" or a shipped config's name, as for `load`; "" if no config file made it.
        workdir: an existing directory.

    Raises:
        UserError: there is no such config.
        OSError: a file cannot be written.
    """
    files = dict[Path, str]()
    if spec:
        files[workdir / CONFIG_COPY] = find_config(spec.partition(":")[0]).read_text()
    write_all(files | {workdir / DESCRIPTION: json.dumps(describe(experiment, spec), indent=1) + "\n"})


def restore(workdir: Path, overrides: Iterable[tuple[str, str]] = ()) -> Experiment:
    """Rebuilds the experiment of a work directory, from the files in it only.

    Args:
        workdir: has experiment.json and, if a config file made it, config.py.
        overrides: as for `load`.

    Returns:
        The experiment.

    Raises:
        UserError: it holds no run, a file in it cannot be read, or an override does not fit.
    """
    stored = description.read(workdir)
    old = stored["format"] < FORMAT
    config = functools.partial(load_module, workdir / CONFIG_COPY, old=True)
    find = functools.partial(description.find, config=config, where=workdir / DESCRIPTION)
    with _intact(workdir / DESCRIPTION):
        described = stored["experiment"]
        if old:
            described = format_1.upgrade(described, lambda reference: _bases(find(reference)))
        restored = _overridden(tree.restore(described, find), (), ())
    overrides = list(overrides)
    own: tuple[ModuleType, ...] = ()
    if overrides and (workdir / CONFIG_COPY).exists():
        # A config of format 1 may call classes with the arguments of that time. Then its own parts cannot be chosen.
        with contextlib.suppress(*([Exception] if old else [])):
            own = (config(),)
    return _overridden(restored, overrides, own)


@contextlib.contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Turns what entries of other types cause into one line that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{path} is damaged: {type(error).__name__}: {reason}") from error


def _bases(cls: type) -> list[str]:
    return [tree.reference(base, "config") for base in cls.__mro__[1:]]


def check_resume(old: Experiment, new: Experiment, workdir: Path) -> None:
    """Checks that a run may be resumed with a changed experiment.

    Args:
        old: the experiment in the work directory.
        new: the experiment to resume with.
        workdir: for the message.

    Raises:
        UserError: the experiments differ in a field that is not tunable; the message shows both values.
    """
    before, after = (
        description.comparable(tree.describe(experiment, fields=tree.untunable)) for experiment in (old, new)
    )
    changed = [f"{path}: {was} -> {now}" for path, was, now in tree.differences(before, after)]
    if changed:
        more = f" (and {len(changed) - 4} more)" if len(changed) > 4 else ""
        raise UserError(
            f"{workdir} holds another experiment: {'; '.join(changed[:4])}{more}. Use another workdir=DIR, "
            "or set these back"
        )
