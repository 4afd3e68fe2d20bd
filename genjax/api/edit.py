"""Edits of test images by a trained model, which it was not trained for: the tasks, and the verb.

By a diffusion model:

inpaint      half of each image is kept, the other drawn
colourise    the grey values are kept
superres     the averages of blocks of pixels are kept
sdedit       noised to a time and denoised, as its own or as another class
interpolate  from one image to another by way of their latents

The tasks of models with latents of their own (autoencoders, generators) are in `explore`. A translator's task is the
one that it was trained for:

translate    the inputs, what is made of them, by another run too (`beside`), the target of the nearest training input
             where there are pairs, the targets, and the way back where there is one
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
from genjax.core.objective import HasDecoder, HasTranslation
from genjax.core.types import Array, Key, Params, named
from genjax.data.sources.pairs import halves
from genjax.diffusion.threshold import NoThreshold
from genjax.evaluation.evaluate import whole
from genjax.evaluation.held_out import translations
from genjax.evaluation.sampling import gather
from genjax.metrics.translation import neighbours
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.parallel import console
from genjax.reports.exports import write_arrays
from genjax.reports.latents import View, explore
from genjax.reports.pictures import grid
from genjax.samplers.editing import Path as Way
from genjax.samplers.editing import interpolate, sdedit
from genjax.samplers.grids import Quadratic
from genjax.samplers.inverse import Linear, adjoint, grey, masked, onto, pooled, pseudo_inverse, restore
from genjax.samplers.ode import Heun
from genjax.samplers.scan import sample
from genjax.training.loop import Run
from genjax.training.step import TrainState
from genjax.training.workdir import load_state, reopen

Images = Float[Array, "b h w c"]
TASKS = ("inpaint", "colourise", "superres", "sdedit", "interpolate")
METHODS = ("gradient", "replace")


@dataclass(frozen=True)
class Edit:
    """What is done to the images.

    Attributes:
        task: one of TASKS, of an autoencoder one of `explore.TASKS`, of a translator "translate".
        strength: of sdedit: the time in (0, 1] to which images are noised.
        factor: of superres: averages are over factor x factor pixels.
        method: one of METHODS, of the first three tasks: "gradient" (pseudo-inverse guidance), or "replace"
            (replacement, RePaint).
        repeats: of "replace": how often each step is taken.
        points: of interpolate: images from end to end; of an autoencoder's tasks see `explore.View`.
        path: of an autoencoder's interpolate: on the arc or the chord.
        label: one class for all results; None keeps the images' own.
    """

    task: str = "inpaint"
    strength: float = 0.5
    factor: int = 2
    method: str = "gradient"
    repeats: int = 10
    points: int = 8
    path: Way = "spherical"
    label: int | None = None

    def check(self, run: Run, num: int) -> Diffusion:
        """The run's objective.

        Raises:
            UserError: this edit cannot be done with this run.
        """
        objective, data = run.experiment.objective, run.experiment.data
        if self.task not in TASKS:
            raise UserError(f"no task '{self.task}': {nearest(self.task, TASKS)}")
        if self.method not in METHODS:
            raise UserError(f"no method '{self.method}': {nearest(self.method, METHODS)}")
        if not isinstance(objective, Diffusion):
            raise UserError(f"edits need a Diffusion model, and this run's is a {type(objective).__name__}")
        if data.kind != "image":
            raise UserError(f"edits are of images, and this run's data are {data.kind}")
        if self.task == "colourise" and data.shape[-1] != 3:
            raise UserError(f"--task=colourise needs images of 3 channels, and these have {data.shape[-1]}")
        if self.label is not None and not 0 <= self.label < objective.classes:
            known = f"classes 0 to {objective.classes - 1}" if objective.classes else "no classes"
            raise UserError(f"--label={self.label}: this model has {known}")
        for name, value in (("num", num), ("factor", self.factor), ("repeats", self.repeats)):
            if value < 1:
                raise UserError(f"--{name}={value} must be at least 1")
        if self.points < 2:
            raise UserError(f"--points={self.points} must be at least 2: an image and another")
        return objective

    def measurement(self, x: Images) -> Linear:
        """A, of the tasks that keep what A sees: the left half, grey values, or averages."""
        columns = jnp.arange(x.shape[2])[None, None, :, None]
        half = masked((columns < x.shape[2] // 2).astype(x.dtype))
        return {"inpaint": half, "colourise": grey, "superres": pooled(self.factor)}[self.task]


def edit(
    objective: Diffusion, params: Params, how: Edit, key: Key, x: Images, label: Array | None
) -> tuple[Float[Array, "n b h w c"], ...]:
    """Edits images with a model's own guidance, threshold and sampler.

    Args:
        objective: the model.
        params: its parameters.
        how: the edit.
        key: typed PRNG key.
        x: images as the model sees them; for interpolate the images from which, and then those to which.
        label: int32 [b] for the results, or None.

    Returns:
        Arrays whose last is the results, n = 1 for each image; of interpolate n = `points` for each pair. Before it
        what was given, and what the model saw of it.
    """
    process, sampler = objective.process, objective.sampler
    denoise = objective.guided(params, label)
    smooth = dataclasses.replace(objective, threshold=NoThreshold()).guided(params, label)
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
        led = pseudo_inverse(smooth, process, operator, y, spread=jnp.std(x))
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
        workdir: of a run on images with a checkpoint: of Diffusion, or of an objective with a decoder.
        overrides: of what sampling depends on, e.g. ("objective.sampler.steps", "20").
        how: the edit.
        num: images (for interpolate pairs of images).
        seed: of the randomness.
        out: the npz; None is WORKDIR/TASK.npz.
        beside: of translate: another run's work directory.

    Returns:
        Path of the npz: `samples`, for interpolate [points, num, ...], and for the other tasks [num, ...] with what
        they began from as `input`, and as `seen` what was kept of it; all in the data's own units.

    Raises:
        UserError: no run there, one that cannot be edited so, or an override that only training could follow.
    """
    run = reopen(workdir, overrides)
    out = out or workdir / f"{how.task}.npz"
    if isinstance(run.experiment.objective, HasDecoder):
        state = load_state(run, workdir)
        view = View(run, state, num, how.points, how.path, how.label, seed)
        arrays, image = explore(view, how.task)
        write_arrays(out, image, **arrays)
        console.say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
        return out
    if isinstance(run.experiment.objective, HasTranslation):
        translated(run, load_state(run, workdir), how, num, seed, out, beside)
        return out
    objective, data = how.check(run, num), run.experiment.data
    state = load_state(run, workdir)
    examples, needed = whole(data, "test"), 2 * num if how.task == "interpolate" else num
    if len(examples["x"]) < needed:
        raise UserError(f"--num={num} needs {needed} test images, and there are {len(examples['x'])}")
    batch = data.forward({name: rows[:needed] for name, rows in examples.items()}, jax.random.key(0), False)
    label = None
    if how.label is not None:
        label = jnp.full(num, how.label, jnp.int32)
    elif objective.classes and how.task != "interpolate":
        label = batch["label"]
    run_edit = jax.jit(lambda params, x, label, key: edit(objective, params, how, key, x, label))
    key = named(jax.random.key(seed), "edit")
    rows = [gather(part) for part in run_edit(state.ema, batch["x"], label, key)]
    rows = [data.inverse(part.reshape(-1, *data.shape)).reshape(part.shape) for part in rows]
    write(out, how, rows, data.levels)
    console.say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
    return out


def translated(
    run: Run, state: TrainState, how: Edit, num: int, seed: int, out: Path, beside: Path | None = None
) -> None:
    """The npz of a translator's pictures by name, and a picture of at most 16 rows, one for each input.

    Args:
        run: its objective translates.
        state: its moving average is used.
        how: the task.
        num: test examples.
        seed: of the translators' noise.
        out: the npz.
        beside: work directory of another translator of the same data.

    Raises:
        UserError: another task is asked for, more test examples than there are, or the other run is of other data.
    """
    data = run.experiment.data
    if how.task != "translate":
        raise UserError(
            f"a {type(run.experiment.objective).__name__} has no task '{how.task}': --task=translate"
        )
    there = len(data.load("test"))
    if not 1 <= num <= there:
        raise UserError(f"--num={num} must be 1 ... {there}, the number of test examples")
    made = translations(run.experiment, state, run.mesh, num, seed)
    shown = {name: made.pop(name) for name in ("input", "output")}
    if beside is not None:
        other = reopen(beside, ())
        if other.experiment.data != data or not isinstance(other.experiment.objective, HasTranslation):
            raise UserError(f"{beside} does not translate the data of this run")
        theirs = translations(other.experiment, load_state(other, beside), other.mesh, num, seed)
        shown["beside"] = theirs["output"]
    if getattr(data.source, "paired", True):
        inputs, targets = halves(whole(data, "train")["x"])
        shown["neighbour"] = targets[neighbours(inputs, shown["input"])]
    shown |= made
    rows = np.stack([pictures[:16] for pictures in shown.values()], axis=1)
    image = grid(rows.reshape(-1, *rows.shape[2:]), levels=data.levels or 256, columns=len(shown))
    write_arrays(out, image, **shown)
    console.say(f"columns: {', '.join(shown)}")
    console.say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")


def write(out: Path, how: Edit, rows: list[np.ndarray], levels: int) -> None:
    """The npz, and a picture of at most 16 images with a column each (of interpolate a row for each pair)."""
    if how.task == "interpolate":
        arrays, shown = {"samples": rows[0]}, rows[0].swapaxes(0, 1)[:16]
    else:
        names = ("input", "samples") if len(rows) == 2 else ("input", "seen", "samples")
        arrays = {name: part[0] for name, part in zip(names, rows, strict=True)}
        shown = np.concatenate(rows)[:, :16]
    image = grid(shown.reshape(-1, *shown.shape[2:]), levels=levels, columns=shown.shape[1])
    write_arrays(out, image, **arrays)
