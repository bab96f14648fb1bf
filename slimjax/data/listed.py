"""List-file data sets, such as TF-NAS's ImageNet-100: text files of `relative/path.JPEG label` lines.

Paths are relative to `data_dir`; labels count from 0. Without `train_list` and `test_list`, the lists are
`data_dir/NAME_train.txt` and `data_dir/NAME_test.txt`; given ones may lie anywhere.
"""

from dataclasses import dataclass

import numpy as np
from etils import epath

from slimjax.data.dataset import Example, Opened, check_labels, check_path, mistake
from slimjax.data.images import decode


@dataclass(frozen=True, eq=False)
class ListedSource:
    """Image files, decoded when asked for: sizes vary. labels int32 [N]."""

    root: epath.Path
    paths: list[str]
    labels: np.ndarray
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        path = self.root / self.paths[index]
        try:
            image = decode(path.read_bytes(), self.channels)
        except (OSError, SyntaxError, ValueError) as error:  # no file, or one that PIL cannot read
            raise mistake(
                str(path), "a readable image", str(error), "Restore it, or drop its line."
            ) from error
        return {"image": image, "label": self.labels[index]}


def open_listed(
    name: str,
    data_dir: str | None,
    train_list: str | None,
    test_list: str | None,
    num_classes: int | None,
    image_size: int | None,
    channels: int,
) -> Opened:
    """Returns the train and test sources, the class count and the image shape [H, W, C] they are to get.

    Raises:
        UserError: a missing directory or list, a bad line, or labels that are not the classes 0 to K-1.
    """
    where = f"data set {name!r}"
    check_path("data.name", name)
    if data_dir is None or not epath.Path(data_dir).is_dir():
        raise mistake(where, "the directory of its images", str(data_dir), "Set data.data_dir.")
    if image_size is None:
        raise mistake(where, "data.image_size", "none", "Say to which size the images are to be brought.")
    if channels not in (1, 3):
        raise mistake(where, "data.channels 1 (grey) or 3 (RGB)", str(channels), "Correct it.")
    root = epath.Path(data_dir)
    train_path = epath.Path(train_list or root / f"{name}_train.txt")
    train = _read_list(root, train_path, channels)
    test = _read_list(root, epath.Path(test_list or root / f"{name}_test.txt"), channels)
    classes = len(np.unique(train.labels))
    if num_classes is not None and classes != num_classes:
        advice = "Correct data.num_classes, or the list."
        raise mistake(
            f"{where}, {train_path}", f"{num_classes} classes", f"{classes} different labels", advice
        )
    for source in (train, test):
        check_labels(where, source.labels, classes)
        _check_one_file_per_class(source)
    return train, test, classes, (image_size, image_size, channels)


def _read_list(root: epath.Path, path: epath.Path, channels: int) -> ListedSource:
    if not path.is_file():
        raise mistake(
            str(path), "a list of `relative/path label` lines", "no file", "Set data.train_list, test_list."
        )
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise mistake(str(path), "at least one image", "an empty list", "Write the list again.")
    entries = [_parse(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1)]
    labels = np.array([label for _, label in entries], np.int32)
    return ListedSource(root, [image for image, _ in entries], labels, channels)


def _parse(where: str, line: str) -> tuple[str, int]:
    image, _, label = line.strip().rpartition(" ")
    if not image or not label.isascii() or not label.isdigit():
        raise mistake(where, "`relative/path label`, the label from 0", repr(line), "Correct the line.")
    check_path(where, image)
    return image.strip(), int(label)


def _check_one_file_per_class(source: ListedSource) -> None:
    """A wrong root shows here, before a model is compiled, without a look at every file."""
    _, first = np.unique(source.labels, return_index=True)
    for index in first:
        path = source.root / source.paths[index]
        if not path.is_file():
            raise mistake(str(path), "an image file", "no file", "Check data.data_dir and the list.")
