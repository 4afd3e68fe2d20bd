"""Writes data sets in TFDS's format without TensorFlow."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write(root: Path, name: str, features: Any, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes version 1.0.0 of a data set: `features` of TFDS, and each split's examples as TFDS stores them."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    serializer = ExampleSerializer(features.get_serialized_info())
    for split, examples in splits.items():
        writer = ArrayRecordWriter(
            str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        for example in examples:
            writer.write(serializer.serialize_example(example))
        writer.close()
    features.save_config(str(folder))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        "name": name,
        "version": "1.0.0",
        "fileFormat": "array_record",
        "moduleName": name,
        "splits": [
            {
                "name": split,
                "filepathTemplate": template,
                "shardLengths": [str(len(examples))],
                "numBytes": "1",
            }
            for split, examples in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
