"""Edits test images with a diffusion model, explores latent spaces, or translates images.

python -m experiments.edit --workdir=DIR --task=inpaint|colourise|superres|sdedit|interpolate --num=8 [--strength=0.5]
python -m experiments.edit --workdir=DIR --task=reconstruct|interpolate|traverse|manifold|codes|mix [--points=8]
python -m experiments.edit --workdir=DIR --task=translate --num=8 [--beside=OTHER_DIR]
"""

from pathlib import Path

from absl import flags

from genjax.api.edit import TASKS, Edit, edit_workdir
from genjax.reports import latents
from genjax.training import experiment

from . import cli, dry_run, used

WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "A run of a Diffusion model of images, an autoencoder, a generator, or a translator.",
    required=True,
)
TASK = flags.DEFINE_string(
    "task",
    "inpaint",
    f"One of {', '.join(TASKS)}; for autoencoders one of {', '.join(latents.TASKS)}; translate.",
)
NUM = flags.DEFINE_integer("num", 8, "Number of test images; for interpolate of pairs.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed.")
STRENGTH = flags.DEFINE_float("strength", 0.5, "sdedit: the time in (0, 1] to which images are noised.")
FACTOR = flags.DEFINE_integer("factor", 2, "superres: averages over FACTOR x FACTOR pixels are kept.")
METHOD = flags.DEFINE_string(
    "method",
    "gradient",
    "inpaint, colourise, superres: gradient (pseudo-inverse guidance), or replace (RePaint).",
)
REPEATS = flags.DEFINE_integer("repeats", 10, "replace: repetitions of each step.")
POINTS = flags.DEFINE_integer(
    "points", 8, "interpolate: images including both ends; traverse: values; manifold: grid points per side."
)
PATH = flags.DEFINE_enum(
    "path", "spherical", ["spherical", "linear"], "interpolate of autoencoders: path between latents."
)
LABEL = flags.DEFINE_integer("label", None, "Class of all results; default: the images' own.")
BESIDE = flags.DEFINE_string("beside", None, "translate: another run of the same data to show beside.")
OUT = flags.DEFINE_string("out", None, "The .npz to write, a picture beside it; default WORKDIR/TASK.npz.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the run with its overrides, and exit.")


def check_flags() -> None:
    """Refuses options of other tasks than the chosen one."""
    task, restores = TASK.value, TASK.value in ("inpaint", "colourise", "superres")
    used.check_flags(
        [
            (STRENGTH, task == "sdedit", "with --task=sdedit"),
            (FACTOR, task == "superres", "with --task=superres"),
            (METHOD, restores, "with --task=inpaint, colourise or superres"),
            (REPEATS, restores and METHOD.value == "replace", "with --method=replace"),
            (
                POINTS,
                task in ("interpolate", "traverse", "manifold"),
                "with --task=interpolate, traverse or manifold",
            ),
            (PATH, task == "interpolate", "with --task=interpolate"),
            (BESIDE, task == "translate", "with --task=translate"),
        ]
    )


def main(overrides: cli.Overrides) -> None:
    """Runs the editing task that the flags select."""
    used.check_overrides("edit", overrides)
    check_flags()
    how = Edit(
        task=TASK.value,
        strength=STRENGTH.value,
        factor=FACTOR.value,
        method=METHOD.value,
        repeats=REPEATS.value,
        points=POINTS.value,
        path="linear" if PATH.value == "linear" else "spherical",
        label=LABEL.value,
    )
    if DRY_RUN.value:
        print(dry_run.describe_workdir(Path(WORKDIR.value), overrides))
        how.check(experiment.restore(Path(WORKDIR.value), overrides), NUM.value)
        return
    out = Path(OUT.value) if OUT.value else None
    beside = Path(BESIDE.value) if BESIDE.value else None
    edit_workdir(Path(WORKDIR.value), overrides, how, num=NUM.value, seed=SEED.value, out=out, beside=beside)


if __name__ == "__main__":
    cli.run(main)
