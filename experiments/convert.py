"""Brings language models of Hugging Face's layout into a work directory, and out of one. No pickle is executed.

python -m experiments.convert --source=FOLDER --workdir=DIR      # config.json, *.safetensors, tokenizer.json
python -m experiments.convert --workdir=DIR --target=FOLDER
python -m experiments.convert --workdir=DIR --merged=DIR2          # LoRA's factors into the model that they adapt
python -m experiments.convert --tokens=FILE.txt --size=1000 --target=tokenizer.json     # learns a byte-pair encoding
python -m experiments.convert --source=FILE.pth --target=FILE.safetensors      # Inception's weights; needs torch

After the first, `sample --workdir=DIR --prompt=...`, `evaluate --workdir=DIR`, and
`train --config=ar_gpt2:FOLDER --workdir=DIR --config.data.source.path=FILE.txt` work on it.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from genjax.api import convert
from genjax.core.errors import UserError
from genjax.metrics.features import inception

SOURCE = flags.DEFINE_string("source", None, "A folder in Hugging Face's layout to read.")
WORKDIR = flags.DEFINE_string("workdir", None, "The work directory to make, or to read.")
TARGET = flags.DEFINE_string("target", None, "The folder (or tokenizer.json) to write.")
TOKENS = flags.DEFINE_string("tokens", None, "A text to learn a byte-pair encoding from.")
MERGED = flags.DEFINE_string("merged", None, "The work directory to make of an adapter's.")
SIZE = flags.DEFINE_integer("size", 1000, "Tokens of the encoding.")


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    words = (flag.value or "" for flag in (SOURCE, WORKDIR, TARGET, MERGED, TOKENS))
    source, workdir, target, merged, tokens = words
    match (bool(source), bool(workdir), bool(target), bool(merged), bool(tokens)):
        case (False, False, True, False, True):
            convert.learn_tokens(Path(tokens), SIZE.value, Path(target))
        case (True, True, False, False, False):
            convert.bring_in(source, Path(workdir), overrides)
        case (False, True, True, False, False):
            convert.bring_out(Path(workdir), Path(target))
        case (True, False, True, False, False):
            inception.convert(Path(source), Path(target))
        case (False, True, False, True, False):
            convert.bring_merged(Path(workdir), Path(merged))
        case _:
            raise UserError(
                "say --source and --workdir, --workdir and --target, --workdir and --merged, --tokens and --target, or "
                "--source and --target of Inception's weights"
            )


if __name__ == "__main__":
    cli.run(main, alone=True)
