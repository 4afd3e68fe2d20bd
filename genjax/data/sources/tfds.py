"""TensorFlow Datasets, read without TensorFlow.

A data set is *prepared* once (downloaded, checked, written as array_record files), which needs TensorFlow; reading it
afterwards does not. With `manual_dir`, the original files are taken from that folder instead of the network; TFDS still
checks their registered checksums.

TFDS caches unpacked files under their bare names. Fashion-MNIST's files have the same names as MNIST's: prepared second
with the same download folder, it silently holds MNIST's images, in spite of the checksums. Hence every data set has its
own download folder here.
"""

import dataclasses
import difflib
import functools
import importlib.util
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError, nearest
from genjax.core.tree import tunable
from genjax.data.examples import Examples, in_memory
from genjax.data.labels import check_labels
from genjax.data.source import Kind, check_split, dtype_levels
from genjax.data.text.text import Unit, Vocabulary, windows

CHUNK = 4096
KINDS: dict[str, Kind] = {"Image": "image", "Text": "text", "Audio": "audio", "Tensor": "points"}


@dataclasses.dataclass(frozen=True)
class TFDS:
    """A data set of the TFDS catalogue, or any folder in TFDS's format.

    Kind, shape and classes come from the catalogue, so that a config can be built without the data; the first `load`
    prepares the data set if necessary, and until then `splits` lists "train" and "test" only. Texts are joined by
    newlines and cut into windows; images must have one fixed shape. Without a test split, the last tenth of the
    training split is used as one.

    Attributes:
        name: such as "mnist", "mnist:3.0.1" or "glue/sst2".
        data_dir: folder of prepared data sets; None for TFDS's default.
        manual_dir: folder with the original files, to prepare without a network.
        x: name of the feature that becomes "x"; None for the first image, text, audio or tensor.
        label: name of the feature with the class, if the data set has it.
        length: tokens in a window of text.
        unit: tokens of text: "byte" (256) or "char" (the characters that occur in any split).
        values: number of integer values of "x"; None for all values of its dtype (8 or 16 bits), and for the size of
            the vocabulary of text.
        memory_mib: MiB of decoded examples up to which a split is read into memory; a larger one stays on disk, and
            examples are decoded on access (see `loading.Input.workers`). Tunable.
    """

    name: str
    data_dir: str | None = None
    manual_dir: str | None = None
    x: str | None = None
    label: str = "label"
    length: int = 128
    unit: Unit = "byte"
    values: int | None = None
    memory_mib: int = tunable(4096)

    @property
    def kind(self) -> Kind:
        """Kind of an example, by the feature's type."""
        return KINDS[type(self._feature).__name__]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, or (length,) for text."""
        if self.kind == "text":
            return (self.length,)
        shape = tuple(self._feature.shape)
        if None in shape:
            raise UserError(f"'{self.x_name}' of '{self.name}' has no fixed shape: {shape}")
        return shape

    @property
    def dtype(self) -> str:
        """The feature's dtype; int32 for text."""
        return "int32" if self.kind == "text" else np.dtype(self._feature.np_dtype).name

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        if self.kind == "text" or self.label not in self._features:
            return 0
        return getattr(self._features[self.label], "num_classes", None) or 0

    @property
    def levels(self) -> int:
        """Number of integer values; 0 for floating point. Reads the texts if the unit is "char"."""
        if self.values is not None:
            return self.values
        if self.kind == "text":
            return len(self.vocabulary)
        return dtype_levels(self.dtype, f"'{self.x_name}' of '{self.name}'")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the data set, "test" always among them."""
        return tuple(self._split_names) if self._catalogued.is_prepared() else ("train", "test")

    @property
    def x_name(self) -> str:
        """Name of the feature that becomes "x"."""
        features = self._features
        if self.x is None:
            names = [name for name, feature in features.items() if type(feature).__name__ in KINDS]
            return names[0] if names else next(iter(features))
        if self.x not in features:
            raise UserError(f"no feature '{self.x}' in '{self.name}': {nearest(self.x, features)}")
        return self.x

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The map between text and tokens."""
        texts = b"".join(map(self._text, self._split_names)) if self.unit == "char" else b""
        return Vocabulary.of(texts, self.unit)

    def load(self, split: str) -> Examples:
        """Reads one split, into memory if it takes at most `memory_mib`; see `Source.load`."""
        check_split(split, tuple(self._split_names))
        if self.kind == "text":
            return windows(self.vocabulary.encode(self._text(split)), self.length, split)
        records = Records(
            self._records(split), self.x_name, self.label if self.classes else None, self.classes
        )
        if len(records) * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize > self.memory_mib * 2**20:
            return records
        return in_memory(records, CHUNK)

    @functools.cached_property
    def _catalogued(self) -> Any:
        return find_builder(self.name, self.data_dir)

    @property
    def _features(self) -> Any:
        return self._catalogued.info.features

    @functools.cached_property
    def _builder(self) -> Any:
        return prepared_builder(self.name, self.data_dir, self.manual_dir)

    @functools.cached_property
    def _split_names(self) -> dict[str, str]:
        """Name of a split -> TFDS's expression for it."""
        names = {str(name): str(name) for name in self._builder.info.splits}
        if "train" not in names:
            raise UserError(f"'{self.name}' has no train split (one of: {', '.join(sorted(names))})")
        return names if "test" in names else {**names, "train": "train[:90%]", "test": "train[90%:]"}

    @property
    def _feature(self) -> Any:
        feature = self._features[self.x_name]
        if type(feature).__name__ not in KINDS:
            found = type(feature).__name__
            raise UserError(f"'{self.x_name}' of '{self.name}' is a {found}: use one of {', '.join(KINDS)}")
        return feature

    def _records(self, split: str) -> Any:
        return self._builder.as_data_source(split=self._split_names[split])

    def _text(self, split: str) -> bytes:
        records = self._records(split)
        return b"\n".join(record[self.x_name] for record in records.__getitems__(list(range(len(records)))))


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Examples on disk, decoded on access.

    Attributes:
        source: TFDS's random access to one split.
        x: name of the feature that becomes "x".
        label: name of the feature with the class, or None.
        classes: number of classes.
    """

    source: Any
    x: str
    label: str | None
    classes: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        records = self.source.__getitems__(indices.tolist())
        arrays = {"x": np.stack([record[self.x] for record in records])}
        if self.label is not None:
            label = np.array([record[self.label] for record in records])
            check_labels(label, self.classes, f"feature '{self.label}'")
            arrays["label"] = label.astype(np.int32)
        return arrays


def find_builder(name: str, data_dir: str | None) -> Any:
    """TFDS's builder of a data set, prepared or not.

    Raises:
        UserError: the name is unknown, or the folder's metadata cannot be read.
    """
    import tensorflow_datasets as tfds  # takes a second

    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        catalogue = tfds.list_builders(with_community_datasets=False)
        raise UserError(f"no TFDS data set '{name}': {few_nearest(name, catalogue)}") from error
    except (AssertionError, ValueError, OSError) as error:
        raise UserError(f"TFDS data set '{name}': {first_line(error)}") from error


def prepared_builder(name: str, data_dir: str | None, manual_dir: str | None) -> Any:
    """TFDS's builder of a data set, which is prepared if necessary.

    Args:
        name: as of `TFDS`.
        data_dir: as of `TFDS`.
        manual_dir: as of `TFDS`.

    Returns:
        The builder, whose data are in array_record format.

    Raises:
        UserError: the name is unknown, the data are in another format, TensorFlow is missing, or preparing has failed.
    """
    import tensorflow_datasets as tfds

    builder = find_builder(name, data_dir)
    if builder.is_prepared():
        if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(
                f"'{name}' in {builder.data_dir} is {builder.info.file_format.value}, which needs TensorFlow to read: "
                "choose another data_dir to prepare it as array_record"
            )
        return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"'{name}' is not prepared in {builder.data_dir}, and preparing it needs TensorFlow (reading does not): "
            "pip install -r requirements-prepare.txt"
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare(
            download_dir=download_dir(builder),
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        )
    except Exception as error:  # network, checksum, disk, missing files: TFDS raises no common class
        raise UserError(f"cannot prepare TFDS data set '{name}': {first_line(error)}") from error
    return builder


def download_dir(builder: Any) -> str:
    """The data set's own folder for downloads: data_dir/downloads/name/config/version."""
    return str(pathlib.Path(builder.data_dir_root) / "downloads" / builder.info.full_name)


def few_nearest(name: str, choices: Iterable[str]) -> str:
    """As `nearest`, for the five closest names only: the catalogue has hundreds."""
    close = difflib.get_close_matches(name, list(choices), n=5, cutoff=0.4)
    return nearest(name, close) if close else "see https://www.tensorflow.org/datasets/catalog"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
