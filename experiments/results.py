"""Writes RESULTS.md from finished runs: what was run, on what, what it found, and what others have published.

python -m experiments.results --run=DIR [--run=DIR ...] [--out=RESULTS.md]

A folder that holds work directories, such as a suite's or a sweep's, stands for all of them. The same work directories
give the same text. With --keep the file's other lines stay, so that one file can gather what several machines found.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from experiments.published import PUBLISHED
from genjax.core.errors import UserError
from genjax.reports.results import markdown
from genjax.reports.runs import read_runs

RUN = flags.DEFINE_multi_string("run", [], "A work directory, or a folder of some.")
OUT = flags.DEFINE_string("out", "RESULTS.md", "The file to write.")
KEEP = flags.DEFINE_bool(
    "keep", False, "Keep the file's lines of other data or commands than those of the runs."
)


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    if overrides:
        raise UserError("results are of finished runs: no --config.x=y can change them")
    runs, path = read_runs([Path(word) for word in RUN.value]), Path(OUT.value)
    try:
        before = path.read_text(encoding="utf-8") if KEEP.value and path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot keep the lines of {path}: {error}") from None
    text = markdown(runs, PUBLISHED, before)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, alone=True)
