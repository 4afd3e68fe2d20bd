"""Imports and exports language models in Hugging Face's layout; merges adapters. No pickle is executed.

python -m experiments.convert --source=FOLDER --workdir=DIR [--config.data.source.path=FILE.txt]
python -m experiments.convert --workdir=DIR --target=FOLDER
python -m experiments.convert --workdir=DIR --merged=DIR2          # merges LoRA into its base model
python -m experiments.convert --tokens=FILE.txt --size=1000 --target=tokenizer.json     # trains a byte-pair encoding
python -m experiments.convert --source=FILE.pth --target=FILE.safetensors      # converts Inception weights; needs torch

FOLDER has config.json, model.safetensors and tokenizer.json. After an import `sample --workdir=DIR --prompt=...` works,
and `train --config=ar_gpt2:FOLDER --workdir=DIR --config.data.source.path=FILE.txt` fine-tunes on a text; the same
command without an import makes the work directory too.
"""

from pathlib import Path

from absl import flags

from genjax.api import convert
from genjax.core.errors import UserError
from genjax.metrics.features import inception

from . import cli

SOURCE = flags.DEFINE_string("source", None, "A folder in Hugging Face's layout to read.")
WORKDIR = flags.DEFINE_string("workdir", None, "The work directory to create or to read.")
TARGET = flags.DEFINE_string("target", None, "The folder (or tokenizer.json) to write.")
TOKENS = flags.DEFINE_string("tokens", None, "A text to train a byte-pair encoding on.")
MERGED = flags.DEFINE_string(
    "merged", None, "The work directory to create with the adapter of --workdir merged."
)
SIZE = flags.DEFINE_integer("size", 1000, "Number of tokens of the encoding.")


def main(overrides: cli.Overrides) -> None:
    """Runs the conversion that the flags select."""
    words = (flag.value or "" for flag in (SOURCE, WORKDIR, TARGET, MERGED, TOKENS))
    source, workdir, target, merged, tokens = words
    match (bool(source), bool(workdir), bool(target), bool(merged), bool(tokens)):
        case (False, False, True, False, True):
            convert.train_bpe(Path(tokens), SIZE.value, Path(target))
        case (True, True, False, False, False):
            convert.import_weights(source, Path(workdir), overrides)
        case (False, True, True, False, False):
            convert.export_weights(Path(workdir), Path(target))
        case (True, False, True, False, False):
            inception.convert(Path(source), Path(target))
        case (False, True, False, True, False):
            convert.export_merged(Path(workdir), Path(merged))
        case _:
            raise UserError(
                "give --source and --workdir, --workdir and --target, --workdir and --merged, --tokens and --target, "
                "or --source and --target of Inception weights"
            )


if __name__ == "__main__":
    cli.run(main, alone=True)
