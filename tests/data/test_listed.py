"""Images named by list files, as ImageNet-100: their batches, and what is said when something is wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimjax.data.images import host_transform
from slimjax.data.pipeline import TrainBatches, eval_batches
from slimjax.data.sources import load
from slimjax.errors import UserError


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Two real photographs as JPEG (one RGB, one grey and smaller), with list files as ImageNet-100's."""
    from sklearn.datasets import load_sample_image

    root = tmp_path_factory.mktemp("imagenet100")
    Image.fromarray(load_sample_image("china.jpg")).save(root / "china.JPEG")
    Image.fromarray(load_sample_image("flower.jpg")).convert("L").resize((300, 200)).save(
        root / "a flower.JPEG"
    )
    for split in ("train", "test"):
        (root / f"imagenet100_{split}.txt").write_text("china.JPEG 0\na flower.JPEG 1\n")
    return root


def photograph_batch(root: Path, train: bool) -> np.ndarray:
    source = load("imagenet100", data_dir=str(root), num_classes=2, image_size=64).split("test")
    transform = host_transform("mobile", 64, train)
    batches = (
        TrainBatches(source, batch_size=2, seed=0, transform=transform)
        if train
        else eval_batches(source, batch_size=2, transform=transform)
    )
    return next(batches)["image"]


@pytest.mark.parametrize("train", [True, False])
def test_photographs_of_many_sizes_make_a_batch(photographs, train):
    images = photograph_batch(photographs, train)
    assert (images.shape, images.dtype, images.std() > 20) == ((2, 64, 64, 3), np.uint8, True)


def test_random_crops_repeat_with_the_seed(photographs):
    np.testing.assert_array_equal(*(photograph_batch(photographs, train=True) for _ in range(2)))


def test_images_of_many_sizes_need_a_transform(photographs):
    source = load("imagenet100", data_dir=str(photographs), num_classes=2).split("train")
    with pytest.raises(UserError, match="images of one size"):
        next(TrainBatches(source, batch_size=2, seed=0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("china.JPEG 2", "labels 0 to 1, got 2"),
        ("china.JPEG -1", "line 1"),
        ("china.JPEG", "line 1"),
        ("../china.JPEG 0", "without '..'"),
        ("/china.JPEG 0", "without '..'"),
        ("absent.JPEG 0", r"absent\.JPEG: expected an image file, got no file"),
        ("", "an empty list"),
    ],
)
def test_bad_list_is_refused(photographs, tmp_path, line, message):
    (tmp_path / "test.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        load("imagenet100", data_dir=str(photographs), num_classes=2, test_list=str(tmp_path / "test.txt"))


def test_list_with_other_class_count_is_refused(photographs):
    with pytest.raises(UserError, match="100 classes, got 2 different labels"):
        load("imagenet100", data_dir=str(photographs))


@pytest.mark.parametrize("directory", [None, "/nonexistent"])
def test_missing_image_directory_is_refused(directory):
    with pytest.raises(UserError, match=r"Set data\.data_dir"):
        load("imagenet100", data_dir=directory)


def test_missing_list_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"imagenet100_train\.txt.*no file"):
        load("imagenet100", data_dir=str(tmp_path))


def test_broken_photograph_is_named(photographs, tmp_path):
    (tmp_path / "china.JPEG").write_bytes((photographs / "china.JPEG").read_bytes()[:5000])
    for split in ("train", "test"):
        (tmp_path / f"own_{split}.txt").write_text("china.JPEG 0\n")
    data = load("own", data_dir=str(tmp_path), image_size=64, train_list=str(tmp_path / "own_train.txt"))
    with pytest.raises(UserError, match=r"china\.JPEG: expected a readable image"):
        data.split("train")[0]
