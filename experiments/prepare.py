"""Tokenizes text files into memory-mapped token files, for text of any size.

python -m experiments.prepare --text=FILES --tokenizer=tokenizer.json --out=DIR [--separator='\\n\\n'] [--test=0.01]
python -m experiments.prepare --text='corpus/*.txt' --tokenizer=byte --out=DIR

Train on them with `train --config=ar_gpt2:DIR`, or with any language model's config and
--config.data.source=Tokens --config.data.source.path=DIR. `experiments.convert --tokens=FILE` trains a tokenizer.json.
"""

import glob
from pathlib import Path

from absl import flags

from genjax.core.errors import UserError
from genjax.data.text import token_files

from . import cli

TEXT = flags.DEFINE_list("text", None, "Text files (UTF-8) or patterns, separated by commas.")
TOKENIZER = flags.DEFINE_string("tokenizer", "byte", "Path of a tokenizer.json, or 'byte'.")
OUT = flags.DEFINE_string("out", None, "The folder to create.")
SEPARATOR = flags.DEFINE_string(
    "separator", "", "Separator of documents in a file (\\n for a newline); empty: each file is one document."
)
TEST = flags.DEFINE_float("test", 0.1, "Fraction of documents in the test split.")
END = flags.DEFINE_string(
    "end", None, "Token that ends a document; default <|endoftext|> if the tokenizer has it."
)
SHARD = flags.DEFINE_integer(
    "shard", token_files.SHARD, "Approximate number of tokens per file.", lower_bound=1
)


def main(overrides: cli.Overrides) -> None:
    """Tokenizes the files that the flags name."""
    if not TEXT.value or not OUT.value:
        raise UserError("give --text=FILES and --out=DIR")
    if overrides:
        raise UserError("prepare takes no --config overrides")
    paths = [path for word in TEXT.value for path in sorted(glob.glob(word, recursive=True)) or [word]]
    separator = SEPARATOR.value
    for spelling, character in {"\\r": "\r", "\\n": "\n", "\\t": "\t"}.items():
        separator = separator.replace(spelling, character)
    body = token_files.write(
        paths,
        TOKENIZER.value,
        Path(OUT.value),
        separator=separator,
        test=TEST.value,
        end=END.value,
        shard=SHARD.value,
    )
    for split, found in body["splits"].items():
        files = f"{len(found['files'])} files of {body['dtype']}"
        print(f"{split:6} {found['documents']:,} documents, {found['tokens']:,} tokens in {files}")
    print(f"wrote {OUT.value}: a vocabulary of {body['vocabulary']:,}")


if __name__ == "__main__":
    cli.run(main)
