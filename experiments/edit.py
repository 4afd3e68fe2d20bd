"""Edits test images by a trained diffusion model, shows what latents stand for, or translates.

python -m experiments.edit --workdir=DIR --task=inpaint|colourise|superres|sdedit|interpolate --num=8 [--strength=0.5]
python -m experiments.edit --workdir=DIR --task=reconstruct|interpolate|traverse|manifold|codes|mix [--points=8]
python -m experiments.edit --workdir=DIR --task=translate --num=8 [--beside=OTHER_DIR]
"""

from pathlib import Path

from absl import flags

from experiments import cli
from genjax.api.edit import TASKS, Edit, edit_workdir
from genjax.reports import latents

WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run: a Diffusion model of images, an autoencoder, or a translator.", required=True
)
TASK = flags.DEFINE_string(
    "task",
    "inpaint",
    f"One of {', '.join(TASKS)}; of an autoencoder one of {', '.join(latents.TASKS)}; translate.",
)
NUM = flags.DEFINE_integer("num", 8, "How many test images; for interpolate how many pairs of them.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the randomness.")
STRENGTH = flags.DEFINE_float("strength", 0.5, "sdedit: the time in (0, 1] to which images are noised.")
FACTOR = flags.DEFINE_integer("factor", 2, "superres: averages of FACTOR x FACTOR pixels are given.")
METHOD = flags.DEFINE_string(
    "method",
    "gradient",
    "inpaint, colourise, superres: gradient (pseudo-inverse guidance), or replace (RePaint).",
)
REPEATS = flags.DEFINE_integer("repeats", 10, "replace: how often each step is taken.")
POINTS = flags.DEFINE_integer(
    "points", 8, "interpolate: images from end to end; traverse: values; manifold: a side."
)
PATH = flags.DEFINE_enum(
    "path", "spherical", ["spherical", "linear"], "interpolate, of an autoencoder: the way between latents."
)
LABEL = flags.DEFINE_integer("label", None, "One class for all results; default: the images' own.")
BESIDE = flags.DEFINE_string("beside", None, "translate: another run of the same data, to be shown too.")
OUT = flags.DEFINE_string("out", None, "The .npz to write, a picture beside it; default WORKDIR/TASK.npz.")


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
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
    out = Path(OUT.value) if OUT.value else None
    beside = Path(BESIDE.value) if BESIDE.value else None
    edit_workdir(Path(WORKDIR.value), overrides, how, num=NUM.value, seed=SEED.value, out=out, beside=beside)


if __name__ == "__main__":
    cli.run(main)
