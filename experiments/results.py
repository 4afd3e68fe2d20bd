"""Writes RESULTS.md from finished runs: commands, hardware, results, and published numbers.

python -m experiments.results --run=DIR [--run=DIR ...] [--out=RESULTS.md]

A folder that contains work directories, such as a suite's or a sweep's, stands for all of them. The output depends on
the work directories alone. --keep retains the file's other lines, to collect results of several machines.
"""

from pathlib import Path

from absl import flags

from genjax.core.errors import UserError
from genjax.core.files import replacing, writing
from genjax.reports.results import markdown
from genjax.reports.runs import read_runs

from . import cli
from .published import PUBLISHED

RUN = flags.DEFINE_multi_string("run", [], "A work directory, or a folder that contains work directories.")
OUT = flags.DEFINE_string("out", "RESULTS.md", "The file to write.")
KEEP = flags.DEFINE_bool("keep", False, "Keep the file's lines of other data or commands.")


def main(overrides: cli.Overrides) -> None:
    """Writes the results of the runs that the flags name."""
    if overrides:
        raise UserError("results takes no --config overrides: it reads finished runs")
    runs, path = read_runs([Path(word) for word in RUN.value]), Path(OUT.value)
    try:
        before = path.read_text(encoding="utf-8") if KEEP.value and path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot keep the lines of {path}: {error}") from None
    text = markdown(runs, PUBLISHED, before)
    with writing(path), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, alone=True)
