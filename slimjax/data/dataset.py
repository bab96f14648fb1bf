"""What a data set is: random-access sources of examples, grouped into the splits train, holdout and test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from slimjax.errors import UserError

Example = dict[str, Any]  # {"image": uint8 [H, W, C], "label": int32 []}

# Which images are held out (or make the test split) must never depend on a run: otherwise two runs would
# be compared on different data, and a resumed search could score widths on images it has trained on.
SPLIT_SEED = 20_190_301


class Source(Protocol):
    """Examples by index. `labels` is None where they are unknown until the images have been read."""

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


# What opening a data set yields: train, test, the class count, and the image shape [H, W, C].
Opened = tuple[Source, Source, int, tuple[int, int, int]]


@dataclass(frozen=True)
class DatasetInfo:
    """What a model and a config must know: `image_shape` is [H, W, C] after the host's transforms."""

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    splits: Mapping[str, int]


@dataclass(frozen=True)
class Dataset:
    """The sources of one data set by split name."""

    info: DatasetInfo
    sources: Mapping[str, Source]

    def split(self, name: str) -> Source:
        """Returns the source of "train", "holdout" or "test". Raises UserError if it is empty or unknown."""
        source = self.sources.get(name)
        if source is None or not len(source):
            found = ", ".join(f"{split} ({size})" for split, size in self.info.splits.items())
            raise mistake(
                f"data set {self.info.name!r}",
                f"images in split {name!r}",
                found,
                _HOLDOUT_ADVICE.get(name, ""),
            )
        return source


_HOLDOUT_ADVICE = {"holdout": "Set data.holdout to the number of training images to hold out."}


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Examples in memory: images uint8 [N, H, W, C], labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": self.labels[index]}


@dataclass(frozen=True)
class DescribedSource:
    """As many examples as a split has, none of which can be read: for what looks at no image."""

    size: int
    labels: None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        raise TypeError(f"example {index} of a data set that is described only")


@dataclass(frozen=True, eq=False)
class Subset:
    """The examples of `source` at `indices` int [N]."""

    source: Source
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray | None:
        return None if self.source.labels is None else self.source.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]


def divide(source: Source, count: int, seed: int) -> tuple[Subset, Subset]:
    """Returns `count` examples and the rest, both in the order of `source`; `seed` alone decides which.

    Stratified by class where the labels are known; plainly random where knowing them means reading every
    image (TFDS data sets).
    """
    order = _random_order(len(source), source.labels, np.random.default_rng(seed))
    return _take(source, np.sort(order[:count])), _take(source, np.sort(order[count:]))


def _take(source: Source, indices: np.ndarray) -> Subset:
    """A subset of a subset is one subset: an example is then one look-up away, however often we divided."""
    if isinstance(source, Subset):
        return Subset(source.source, source.indices[indices])
    return Subset(source, indices)


def _random_order(size: int, labels: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A permutation whose every prefix holds the classes in proportion (equal classes: within one)."""
    order = rng.permutation(size)
    if labels is None:
        return order
    shuffled = labels[order]
    position = np.empty(size)  # in (0, 1): how far through its own class an example comes
    for label in np.unique(labels):
        members = np.flatnonzero(shuffled == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(position, kind="stable")]


def check_labels(where: str, labels: np.ndarray | int, num_classes: int) -> None:
    """Raises UserError if a label is outside [0, num_classes)."""
    lowest, highest = int(np.min(labels)), int(np.max(labels))
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise mistake(
            where, f"labels 0 to {num_classes - 1}", str(wrong), "Correct data.num_classes, or the labels."
        )


def check_equal(where: str, what: str, configured: int | None, found: int) -> None:
    """Raises UserError if the config names another number than the data; None agrees with all."""
    if configured is not None and configured != found:
        raise mistake(
            where, f"{what} {configured} (from the config)", f"{found} in the data", f"Correct data.{what}."
        )


def check_path(where: str, path: str) -> None:
    """Raises UserError for a name or path that could leave the data directory."""
    if path.startswith(("/", "\\", "~")) or ".." in path.replace("\\", "/").split("/") or "://" in path:
        raise mistake(where, "a relative path without '..'", repr(path), "Put the data under data.data_dir.")


def mistake(where: str, expected: str, got: str, remedy: str) -> UserError:
    """Says where, what was expected, what was found, and what to do."""
    return UserError(f"{where}: expected {expected}, got {got}. {remedy}".rstrip())


def choices(names: Sequence[str] | Mapping[str, Any]) -> str:
    """The legal names, for a message."""
    return "one of " + ", ".join(sorted(names))
