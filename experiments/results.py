"""Writes RESULTS.md from finished runs: what was run, on what, what it found, and what others have published.

python -m experiments.results --run=DIR [--run=DIR ...] [--out=RESULTS.md]

A folder that holds work directories, such as a suite's or a sweep's, stands for all of them. The same work directories
give the same text.
"""

from pathlib import Path

from absl import flags

from experiments.published import PUBLISHED
from genjax import cli
from genjax.errors import UserError
from genjax.results import markdown, read_runs

RUN = flags.DEFINE_multi_string("run", [], "A work directory, or a folder of some.")
OUT = flags.DEFINE_string("out", "RESULTS.md", "The file to write.")


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    if overrides:
        raise UserError("results are of finished runs: no --config.x=y can change them")
    text, path = markdown(read_runs([Path(word) for word in RUN.value]), PUBLISHED), Path(OUT.value)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main, alone=True)
