"""Zero-shot edits of test images by a trained model: the tasks, and the function on a work directory.

Tasks of diffusion models:

inpaint      keeps the left half of each image and draws the right half
colourise    keeps the grey values
superres     keeps the averages of blocks of pixels
sdedit       noises to a time and denoises, with its own or another class
interpolate  interpolates between two images in latent space (probability-flow ODE)

The tasks of autoencoders and generators are in `reports.latents`. Image translators have one task:

translate    writes inputs, outputs, outputs of another run (`beside`), for paired data the target of the nearest
             training input, targets, and the translation back if the model has one
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError, nearest
from genjax.core.objective import HasDecoder, HasTranslation, num_classes
from genjax.core.types import Array, Batch, Key, Params, named, root_key
from genjax.data.source import is_paired
from genjax.data.sources.pairs import halves
from genjax.diffusion.threshold import NoThreshold
from genjax.evaluation.distances import load_split
from genjax.evaluation.held_out import translations
from genjax.evaluation.sampling import gather
from genjax.metrics.translation import neighbours
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.parallel import console
from genjax.reports import latents
from genjax.reports.exports import write_arrays
from genjax.reports.latents import View, explore
from genjax.reports.pictures import grid
from genjax.samplers.editing import Path as LatentPath
from genjax.samplers.editing import interpolate, sdedit
from genjax.samplers.grids import Quadratic
from genjax.samplers.inverse import Linear, adjoint, grey, masked, onto, pooled, pseudo_inverse, restore
from genjax.samplers.ode import Heun
from genjax.samplers.scan import sample
from genjax.training.experiment import Experiment
from genjax.training.loop import Run
from genjax.training.step import TrainState
from genjax.training.workdir import load_state, reopen

Images = Float[Array, "b h w c"]
TASKS = ("inpaint", "colourise", "superres", "sdedit", "interpolate")
METHODS = ("gradient", "replace")


@dataclass(frozen=True)
class Edit:
    """An editing task with its options.

    Attributes:
        task: one of TASKS; for autoencoders and generators one of `latents.TASKS`; for translators "translate".
        strength: sdedit: the time in (0, 1] to which images are noised.
        factor: superres: averages are over factor x factor pixels.
        method: inpaint, colourise, superres: one of METHODS, "gradient" (pseudo-inverse guidance) or "replace"
            (replacement, RePaint).
        repeats: "replace": number of repetitions of each step.
        points: interpolate: number of images, both ends included; for latent-space tasks see `latents.View`.
        path: interpolate of autoencoders: "spherical" or "linear".
        label: class of all results; None keeps the images' own classes.
    """

    task: str = "inpaint"
    strength: float = 0.5
    factor: int = 2
    method: str = "gradient"
    repeats: int = 10
    points: int = 8
    path: LatentPath = "spherical"
    label: int | None = None

    def check(self, experiment: Experiment, num: int) -> None:
        """Validates the edit for a trained experiment.

        Args:
            experiment: of the run to edit with.
            num: number of images, or of pairs for interpolate.

        Raises:
            UserError: the run does not support this edit, or an option is out of range.
        """
        objective, data = experiment.objective, experiment.data
        if isinstance(objective, HasDecoder):
            return latents.check(experiment, self.task, num=num, points=self.points, label=self.label)
        if isinstance(objective, HasTranslation):
            if self.task != "translate":
                raise UserError(f"a {type(objective).__name__} has no task '{self.task}': task=translate")
            return None
        if self.task not in TASKS:
            raise UserError(f"no task '{self.task}': {nearest(self.task, TASKS)}")
        if self.method not in METHODS:
            raise UserError(f"no method '{self.method}': {nearest(self.method, METHODS)}")
        if not isinstance(objective, Diffusion):
            raise UserError(f"edits need a Diffusion model, but this run has a {type(objective).__name__}")
        if data.kind != "image":
            raise UserError(f"edits need images, but this run's data are {data.kind}")
        if self.task == "colourise" and data.shape[-1] != 3:
            raise UserError(f"task=colourise needs images of 3 channels, but these have {data.shape[-1]}")
        classes = num_classes(objective)
        if self.label is not None and not 0 <= self.label < classes:
            known = f"classes 0 to {classes - 1}" if classes else "no classes"
            raise UserError(f"label={self.label}: this model has {known}")
        for name, value in (("num", num), ("factor", self.factor), ("repeats", self.repeats)):
            if value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        if self.points < 2:
            raise UserError(f"points={self.points} must be at least 2: the two ends")
        return None

    def measurement(self, x: Images) -> Linear:
        """The linear operator A whose measurement A x is kept: left half, grey values, or block averages."""
        columns = jnp.arange(x.shape[2])[None, None, :, None]
        half = masked((columns < x.shape[2] // 2).astype(x.dtype))
        return {"inpaint": half, "colourise": grey, "superres": pooled(self.factor)}[self.task]


def edit(
    objective: Diffusion, params: Params, how: Edit, key: Key, x: Images, cond: Batch | None
) -> tuple[Float[Array, "n b h w c"], ...]:
    """Edits images with a model's own guidance, threshold and sampler.

    Args:
        objective: the model.
        params: its parameters.
        how: the edit.
        key: typed PRNG key.
        x: images in model units; for interpolate the first half are the start images, the second half the end images.
        cond: condition of the results, e.g. {"label": int32 [b]}, or None.

    Returns:
        (x, back-projected measurement, results), (x, results) for sdedit, (results,) for interpolate; n = 1, or
        n = `points` for interpolate.
    """
    process, sampler = objective.process, objective.sampler
    denoise = objective.guided(params, cond)
    smooth = dataclasses.replace(objective, threshold=NoThreshold()).guided(params, cond)
    if how.task == "sdedit":
        return x[None], sdedit(denoise, process, sampler, key, x, how.strength)[None]
    if how.task == "interpolate":
        a, b = jnp.split(x, 2)
        solver = Heun(steps=50, grid=Quadratic(end=1e-4))
        return (interpolate(smooth, process, solver, a, b, how.points),)
    operator = how.measurement(x)
    y = operator(x)
    if how.method == "replace":
        out = restore(denoise, process, sampler, key, operator, y, x.shape, how.repeats)
    else:
        led = pseudo_inverse(smooth, process, operator, y, data_std=jnp.std(x))
        led = objective.threshold.constrain(led, process)
        out = onto(operator, y, sample(led, process, sampler, key, x.shape))
    return x[None], adjoint(operator, x)(y)[None], out[None]


def edit_workdir(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    how: Edit,
    *,
    num: int,
    seed: int,
    out: Path | None = None,
    beside: Path | None = None,
) -> Path:
    """Edits the first test images of a work directory's data; writes an npz and a picture beside it.

    Args:
        workdir: run on images with a checkpoint: Diffusion, a translator, or an objective with a decoder.
        overrides: (path, value) overrides of sampling options, e.g. ("objective.sampler.steps", "20").
        how: the edit.
        num: number of images (for interpolate, of pairs of images).
        seed: random seed.
        out: path of the npz; None is WORKDIR/TASK.npz.
        beside: translate: work directory of another run.

    Returns:
        Path of the npz, all arrays in data units: `samples` [points, num, ...] for interpolate; for the other tasks
        `samples` [num, ...] with the images as `input` and the back-projected measurement as `seen`.

    Raises:
        UserError: there is no run, it does not support the task, or an override affects training.
    """
    run = reopen(workdir, overrides)
    how.check(run.experiment, num)
    out = out or workdir / f"{how.task}.npz"
    if isinstance(run.experiment.objective, HasDecoder):
        state = load_state(run, workdir)
        view = View(run, state, num, how.points, how.path, how.label, seed)
        arrays, image = explore(view, how.task)
        write_arrays(out, image, **arrays)
        console.say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
        return out
    if isinstance(run.experiment.objective, HasTranslation):
        write_translation(run, load_state(run, workdir), num, seed, out, beside)
        return out
    objective, data = run.experiment.objective, run.experiment.data
    assert isinstance(objective, Diffusion)
    state = load_state(run, workdir)
    examples, needed = load_split(data, "test"), 2 * num if how.task == "interpolate" else num
    if len(examples["x"]) < needed:
        raise UserError(f"num={num} needs {needed} test images, but there are {len(examples['x'])}")
    batch = data.forward({name: rows[:needed] for name, rows in examples.items()}, jax.random.key(0), False)
    cond: Batch | None = None
    if how.label is not None:
        cond = {"label": jnp.full(num, how.label, jnp.int32)}
    elif objective.condition and how.task != "interpolate":
        cond = {"label": batch["label"]}
    run_edit = jax.jit(lambda params, x, cond, key: edit(objective, params, how, key, x, cond))
    key = named(root_key(seed), "edit")
    rows = [gather(part) for part in run_edit(state.ema, batch["x"], cond, key)]
    rows = [data.inverse(part.reshape(-1, *data.shape)).reshape(part.shape) for part in rows]
    write_edit(out, how, rows, data.levels)
    console.say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
    return out


def write_translation(
    run: Run, state: TrainState, num: int, seed: int, out: Path, beside: Path | None = None
) -> None:
    """Writes the npz of a translator's images, and a picture with one row for each of at most 16 inputs.

    Args:
        run: its objective translates.
        state: provides the EMA parameters.
        num: number of test examples.
        seed: seed of the translators' noise.
        out: path of the npz.
        beside: work directory of another translator of the same data.

    Raises:
        UserError: `num` exceeds the test split, or the other run has other data.
    """
    data = run.experiment.data
    there = len(data.load("test"))
    if not 1 <= num <= there:
        raise UserError(f"num={num} must be 1 ... {there}, the number of test examples")
    made = translations(run.experiment, state, run.mesh, num, seed)
    shown = {name: made.pop(name) for name in ("input", "output")}
    if beside is not None:
        other = reopen(beside, ())
        if other.experiment.data != data or not isinstance(other.experiment.objective, HasTranslation):
            raise UserError(f"{beside} does not translate the data of this run")
        theirs = translations(other.experiment, load_state(other, beside), other.mesh, num, seed)
        shown["beside"] = theirs["output"]
    if is_paired(data.source):
        inputs, targets = halves(load_split(data, "train")["x"])
        shown["neighbour"] = targets[neighbours(inputs, shown["input"])]
    shown |= made
    rows = np.stack([pictures[:16] for pictures in shown.values()], axis=1)
    image = grid(rows.reshape(-1, *rows.shape[2:]), levels=data.levels or 256, columns=len(shown))
    write_arrays(out, image, **shown)
    console.say(f"columns: {', '.join(shown)}")
    console.say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")


def write_edit(out: Path, how: Edit, rows: list[np.ndarray], levels: int) -> None:
    """Writes the npz, and a picture with one column for each of at most 16 images (interpolate: a row for each pair).

    Args:
        out: path of the npz.
        how: the edit.
        rows: arrays of `edit` in data units.
        levels: number of grey levels of integer images.

    Raises:
        UserError: a file cannot be written.
    """
    if how.task == "interpolate":
        arrays, shown = {"samples": rows[0]}, rows[0].swapaxes(0, 1)[:16]
    else:
        names = ("input", "samples") if len(rows) == 2 else ("input", "seen", "samples")
        arrays = {name: part[0] for name, part in zip(names, rows, strict=True)}
        shown = np.concatenate(rows)[:, :16]
    image = grid(shown.reshape(-1, *shown.shape[2:]), levels=levels, columns=shown.shape[1])
    write_arrays(out, image, **arrays)
