"""Data sets that TFDS has prepared, read without TensorFlow: CIFAR, ImageNet, and a user's own builders.

TFDS's own errors are translated, because they mislead: data that is simply not there is reported as a
TFRecord file format, and a truncated shard opens fine and fails in the middle of an epoch.
"""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from slimjax.data.dataset import Example, Opened, check_equal, check_labels, check_path, mistake

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w.-]+)?(:\d+\.\d+\.\d+)?")  # no namespace: those can download
_TRUSTED = ("tensorflow_datasets.", "slimjax.")
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # the last is TFDS's older format
_TEST_SPLITS = {"imagenet2012": "validation"}  # its "test" has no labels
_SHARD_READERS = 32

Shape = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class PreparedSource:
    """One TFDS split. `shape` [H, W, C] has None where sizes vary; labels are known only by reading."""

    where: str
    records: Any
    image_key: str
    label_key: str
    shape: Shape
    num_classes: int
    labels: None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record = self.records[index]
        image, label = np.asarray(record[self.image_key]), int(record[self.label_key])
        if not _fits(image.shape, self.shape):
            advice = "Prepare the data set again, or correct data.image_size and data.channels."
            raise mistake(f"{self.where}, example {index}", f"shape {self.shape}", str(image.shape), advice)
        check_labels(f"{self.where}, example {index}", label, self.num_classes)
        return {"image": image, "label": np.int32(label)}


def open_prepared(
    name: str, data_dir: str | None, num_classes: int | None, image_size: int | None, channels: int | None
) -> Opened:
    """Returns the train and test sources, the class count and the image shape [H, W, C].

    Raises:
        UserError: an unsafe or unknown name, data that is missing, damaged or not to be trusted, features
            that are not one image and one label, or that disagree with the config.
    """
    where = f"data set {name!r}"
    check_path("data.name", name)
    if not _NAME.fullmatch(name):
        raise mistake(
            "data.name", "`name`, `name/config` or `name/config:1.0.0`", repr(name), "See slimjax/data."
        )
    root = epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    _check_trust(root / re.split("[/:]", name)[0])
    builder = _builder(name, root)
    image_key, label_key = builder.info.supervised_keys or ("image", "label")
    shape = _image_shape(where, builder, image_key)
    classes = _num_classes(where, builder, label_key, num_classes)
    size = _final_shape(where, shape, image_size, channels)

    def source(split: str) -> PreparedSource:
        records = _records(name, root, builder, split)
        return PreparedSource(f"{where}, split {split!r}", records, image_key, label_key, shape, classes)

    return source("train"), source(_test_split(builder)), classes, size


def _builder(name: str, root: epath.Path) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=root)
    except (ValueError, AssertionError) as error:  # no such data set, config or version
        got = str(error).splitlines()[0]  # the rest lists a thousand data sets
        remedy = (
            f"Correct data.name or data.data_dir. Your own data set is prepared so: {_command(name, root)}"
        )
        raise mistake(f"data set {name!r}, {root}", "prepared data", got, remedy) from error


def _command(name: str, root: epath.Path) -> str:
    return f"`tfds build {name} --file_format=array_record --data_dir={root}` (this needs TensorFlow)."


def _records(name: str, root: epath.Path, builder: tfds.core.DatasetBuilder, split: str) -> Any:
    """The random-access records of a split, one record of every shard having been read."""
    where = f"data set {name!r}, {builder.data_path}"
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    if sizes and not sizes.get(split):
        raise mistake(where, f"images in split {split!r}", str(sizes), "A train and a test split are needed.")
    try:
        records = builder.as_data_source(split)
    except (KeyError, NotImplementedError, ValueError, FileNotFoundError) as error:
        got = "another file format" if isinstance(error, NotImplementedError) else "no prepared data"
        advice = f"Prepare it: {_command(name, root)}"
        raise mistake(where, f"split {split!r} as array_record", got, advice) from error
    if sizes:  # TFDS's mocks have no shards
        _check_shards(records, builder.info.splits[split])
    return records


def _check_shards(records: Any, split: tfds.core.SplitInfo) -> None:
    """Reads the last record of every shard: TFDS opens truncated files without a word."""

    def check(shard: tuple[epath.Path, int]) -> None:
        path, end = shard
        try:
            if not records.data_source[end - 1]:  # so reads a file that was cut at a 64 KB block
                raise ValueError("an empty record")
        except (RuntimeError, IndexError, ValueError, OSError) as error:
            advice = "The file is missing or truncated: copy or prepare it again."
            raise mistake(str(path), "a whole array_record shard", str(error), advice) from error

    filled = [(path, size) for path, size in zip(split.filepaths, split.shard_lengths, strict=True) if size]
    ends = accumulate(size for _, size in filled)
    with ThreadPoolExecutor(_SHARD_READERS) as readers:
        list(readers.map(check, zip((path for path, _ in filled), ends, strict=True)))


def _check_trust(directory: epath.Path) -> None:
    """Refuses a directory whose features.json names foreign code: TFDS would import it."""
    for path in (*directory.glob("*/features.json"), *directory.glob("*/*/features.json")):  # config/version
        try:
            features = json.loads(path.read_text())
        except ValueError as error:
            raise mistake(str(path), "JSON", str(error), "Copy or prepare the data again.") from error
        for class_name in _class_names(features):
            if not class_name.startswith(_TRUSTED):
                advice = "TFDS would import and run that code. Prepare the data with TFDS's own features."
                raise mistake(str(path), "features of tensorflow_datasets or slimjax", class_name, advice)


def _class_names(node: Any) -> Iterator[str]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict):
        yield from (node[key] for key in _CLASS_KEYS if isinstance(node.get(key), str))
    for child in children:
        yield from _class_names(child)


def _test_split(builder: tfds.core.DatasetBuilder) -> str:
    available = builder.info.splits
    fallback = "validation" if "test" not in available and "validation" in available else "test"
    return _TEST_SPLITS.get(builder.name, fallback)


def _feature(where: str, builder: tfds.core.DatasetBuilder, key: str) -> Any:
    features = builder.info.features
    if key not in features:
        advice = "Set supervised_keys=(image, label) in your builder's DatasetInfo."
        raise mistake(where, f"a feature {key!r}", ", ".join(features), advice)
    return features[key]


def _image_shape(where: str, builder: tfds.core.DatasetBuilder, key: str) -> Shape:
    feature = _feature(where, builder, key)
    if len(feature.shape) != 3 or feature.np_dtype != np.uint8:
        got = f"{np.dtype(feature.np_dtype).name} {feature.shape}"
        raise mistake(where, f"feature {key!r} as uint8 [H, W, C]", got, "Store images so in your builder.")
    return feature.shape


def _num_classes(where: str, builder: tfds.core.DatasetBuilder, key: str, configured: int | None) -> int:
    """The label feature's class count; the config's for bare integers, which are checked when read."""
    classes = getattr(_feature(where, builder, key), "num_classes", None) or configured
    if classes is None:
        raise mistake(where, "data.num_classes", "labels that do not say", "Set data.num_classes.")
    check_equal(where, "num_classes", configured, classes)
    return classes


def _final_shape(
    where: str, shape: Shape, image_size: int | None, channels: int | None
) -> tuple[int, int, int]:
    """What a batch holds: the data's own shape, with the config's numbers where the data leaves them open."""
    height, width, depth = shape
    for found in (height, width):
        if found is not None:
            check_equal(where, "image_size", image_size, found)
    if depth is not None:
        check_equal(where, "channels", channels, depth)
    final = (height or image_size, width or image_size, depth or channels)
    if None in final:
        raise mistake(where, "data.image_size and data.channels", f"images of shape {shape}", "Set both.")
    return final  # type: ignore[return-value]  # no None is left


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))
