"""Sources and pipeline: what is in a split, what is in a batch, and what is said when the data is wrong."""

import json
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from slimjax.data.dataset import ArraySource, Source
from slimjax.data.images import host_transform, random_resized_crop, resize_and_centre_crop
from slimjax.data.pipeline import TrainBatches, eval_batches
from slimjax.data.sources import load
from slimjax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load("digits", holdout=97)


@pytest.fixture
def numbered() -> Source:
    """Fifty examples whose image and label are their index: what a batch holds can be read off it."""
    index = np.arange(50)
    return ArraySource(
        np.tile(index.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1)), index.astype(np.int32)
    )


def indices(source: Source) -> set[int]:
    return set(source.indices.tolist())


# Splits


@pytest.mark.parametrize(("name", "train", "test"), [("digits", 1297, 500), ("mnist5k", 4000, 1000)])
def test_embedded_has_documented_sizes(name, train, test):
    assert load(name).info.splits == {"train": train, "holdout": 0, "test": test}


def test_splits_are_disjoint_and_complete(digits):
    parts = [indices(digits.split(split)) for split in ("train", "holdout", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797


def test_splits_do_not_depend_on_the_seed(digits):
    other = load("digits", holdout=97, seed=5)
    for split in ("train", "holdout", "test"):
        np.testing.assert_array_equal(digits.split(split).indices, other.split(split).indices)


def test_test_split_is_the_published_one(digits):
    """Changing SPLIT_SEED, or how it is used, makes every reported accuracy incomparable."""
    assert digits.split("test").indices[:8].tolist() == [0, 3, 4, 8, 12, 14, 17, 23]


@pytest.mark.parametrize("split", ["train", "holdout", "test"])
def test_splits_are_stratified(digits, split):
    everywhere = np.bincount(np.concatenate([digits.split(s).labels for s in ("train", "holdout", "test")]))
    expected = everywhere / 1797 * len(digits.split(split))
    np.testing.assert_allclose(np.bincount(digits.split(split).labels), expected, atol=1.5)


def test_train_examples_are_balanced_and_follow_the_seed():
    small, other = (load("digits", train_examples=100, seed=seed).split("train") for seed in (0, 1))
    np.testing.assert_allclose(np.bincount(small.labels), 10, atol=1)
    assert indices(small) != indices(other)


def test_train_examples_leave_the_holdout_alone(digits):
    small = load("digits", holdout=97, train_examples=100)
    assert indices(small.split("holdout")) == indices(digits.split("holdout"))
    assert not indices(small.split("train")) & indices(digits.split("holdout"))


def test_digits_fill_the_range_of_uint8(digits):
    images = np.stack([example["image"] for example in map(digits.split("test").__getitem__, range(100))])
    assert (images.dtype, images.min(), images.max()) == (np.uint8, 0, 255)


# Training batches


def labels_of(batches: TrainBatches, steps: int) -> list[list[int]]:
    found = [next(batches)["label"].tolist() for _ in range(steps)]
    batches.close()
    return found


def test_train_batch_has_documented_types(numbered):
    batch = next(TrainBatches(numbered, batch_size=8, seed=0))
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((8, 2, 2, 1), "uint8"),
        "label": ((8,), "int32"),
    }


def test_epoch_covers_every_example_once(numbered):
    rows = list(chain.from_iterable(labels_of(TrainBatches(numbered, batch_size=20, seed=3), 5)))
    assert sorted(rows[:50]) == sorted(rows[50:]) == list(range(50))


def test_epochs_differ_in_order(numbered):
    first, second = labels_of(TrainBatches(numbered, batch_size=50, seed=3), 2)
    assert first != second


def test_next_seed_does_not_repeat_this_one_an_epoch_later(numbered):
    _, second = labels_of(TrainBatches(numbered, batch_size=50, seed=3), 2)
    (first,) = labels_of(TrainBatches(numbered, batch_size=50, seed=4), 1)
    assert first != second


def test_resume_is_exact(numbered):
    def noise(example, rng):
        return {**example, "image": rng.integers(0, 256, (2, 2, 1), dtype=np.uint8)}

    unbroken = TrainBatches(numbered, batch_size=8, seed=0, transform=noise)
    for _ in range(9):  # into the second epoch
        next(unbroken)
    resumed = TrainBatches(numbered, batch_size=8, seed=0, transform=noise, start_step=9)
    for _ in range(3):
        expected, found = next(unbroken), next(resumed)
        for key in ("image", "label"):
            np.testing.assert_array_equal(expected[key], found[key])


def test_start_step_is_a_resume(numbered):
    whole = labels_of(TrainBatches(numbered, batch_size=8, seed=0), 6)
    assert labels_of(TrainBatches(numbered, batch_size=8, seed=0, start_step=4), 2) == whole[4:]


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_make_up_the_global_batch(numbered, process_count):
    whole = labels_of(TrainBatches(numbered, batch_size=8, seed=0), 10)
    shards = [
        labels_of(
            TrainBatches(numbered, batch_size=8, seed=0, process_index=p, process_count=process_count), 10
        )
        for p in range(process_count)
    ]
    assert [list(chain.from_iterable(blocks)) for blocks in zip(*shards, strict=True)] == whole


def test_order_does_not_depend_on_threads(numbered):
    one = labels_of(TrainBatches(numbered, batch_size=8, seed=0, num_threads=1), 10)
    assert labels_of(TrainBatches(numbered, batch_size=8, seed=0, num_threads=7, prefetch=9), 10) == one


# Evaluation batches


@pytest.mark.parametrize(("batch_size", "process_count"), [(8, 1), (8, 2), (50, 1), (64, 4)])
def test_eval_weights_count_every_example_once(numbered, batch_size, process_count):
    seen = np.zeros(50)
    for p in range(process_count):
        for batch in eval_batches(
            numbered, batch_size=batch_size, process_index=p, process_count=process_count
        ):
            np.add.at(seen, batch["label"], batch["weight"])
    np.testing.assert_array_equal(seen, 1)


def test_eval_batches_have_one_shape_on_every_process(numbered):
    shapes = [
        [
            batch["image"].shape
            for batch in eval_batches(numbered, batch_size=8, process_index=p, process_count=4)
        ]
        for p in range(4)
    ]
    assert shapes == [[(2, 2, 2, 1)] * 7] * 4


# TFDS


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [("cifar10", 10, (32, 32, 3)), ("cifar100", 100, (32, 32, 3)), ("imagenet2012", 1000, (224, 224, 3))],
)
def test_tfds_data_set_yields_batches(name, classes, shape):
    with tfds.testing.mock_data(num_examples=12, policy=tfds.testing.MockPolicy.USE_CODE):
        data = load(name, num_classes=classes, holdout=4)
        transform = host_transform("basic", 224, train=True) if name == "imagenet2012" else None
        batch = next(TrainBatches(data.split("train"), batch_size=8, seed=0, transform=transform))
    assert (data.info.num_classes, data.info.image_shape) == (classes, shape)
    assert batch["image"].shape == (8, *shape)


class Eleven(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A user's own data set: eleven classes, images stored as plain tensors (no TensorFlow needed)."""

    VERSION = tfds.core.Version("1.0.0")
    label: tfds.features.FeatureConnector = tfds.features.ClassLabel(num_classes=11)
    dtype = np.uint8

    def _info(self):
        image = tfds.features.Tensor(shape=(12, 12, 3), dtype=self.dtype)
        features = tfds.features.FeaturesDict({"image": image, "label": self.label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(110), "test": self._generate_examples(22)}

    def _generate_examples(self, count):
        images = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 3)).astype(self.dtype)
        yield from ((i, {"image": images[i], "label": i % 11}) for i in range(count))


class Bare(Eleven, skip_registration=True):
    """As Eleven, but the labels are bare integers."""

    label = tfds.features.Scalar(np.int64)


class Floats(Eleven, skip_registration=True):
    """As Eleven, but the images are floats."""

    dtype = np.float32


@pytest.fixture(scope="module")
def prepare(tmp_path_factory) -> Callable[[type], str]:
    """Returns a function that writes a builder's data once more and returns the directory."""

    def write(builder: type) -> str:
        directory = tmp_path_factory.mktemp("tfds")
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
        return str(directory)

    return write


@pytest.fixture(scope="module")
def eleven(prepare) -> str:
    return prepare(Eleven)


def test_own_tfds_data_set_loads_by_name_alone(eleven):
    data = load("eleven", data_dir=eleven, num_classes=11, image_size=12, channels=3)
    assert (data.info.num_classes, data.info.image_shape) == (11, (12, 12, 3))
    assert sorted(e["label"] for e in map(data.split("test").__getitem__, range(22))) == sorted(
        [*range(11)] * 2
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_classes": 10}, "num_classes 10 .* 11 in the data"),
        ({"image_size": 32}, "image_size 32 .* 12 in the data"),
        ({"channels": 1}, "channels 1 .* 3 in the data"),
        ({"holdout": 110}, "holdout from 0 to 109, got 110"),
        ({"holdout": -1}, "holdout from 0 to 109, got -1"),
        ({"holdout": 60, "train_examples": 51}, "train_examples from 1 to 50, got 51"),
        ({"train_examples": 0}, "train_examples from 1 to 110, got 0"),
    ],
)
def test_config_that_disagrees_with_the_data_is_refused(eleven, config, message):
    with pytest.raises(UserError, match=message):
        load("eleven", data_dir=eleven, **config)


class Trainless(Eleven, skip_registration=True):
    """As Eleven, but without a train split."""

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples(22)}


def test_split_without_images_is_refused(prepare):
    with pytest.raises(UserError, match=r"images in split 'train', got {'test': 22}"):
        load("trainless", data_dir=prepare(Trainless))


def test_unreadable_features_are_named(prepare):
    directory = prepare(Eleven)
    next(Path(directory).rglob("features.json")).write_text("{")
    with pytest.raises(UserError, match=r"features\.json: expected JSON"):
        load("eleven", data_dir=directory)


def test_bare_labels_need_num_classes(prepare):
    directory = prepare(Bare)
    with pytest.raises(UserError, match=r"data\.num_classes"):
        load("bare", data_dir=directory)
    assert load("bare", data_dir=directory, num_classes=11).info.num_classes == 11


def test_label_out_of_range_reaches_the_training_loop(prepare):
    data = load("bare", data_dir=prepare(Bare), num_classes=10)
    with pytest.raises(UserError, match=r"example \d+: expected labels 0 to 9, got 10"):
        next(TrainBatches(data.split("train"), batch_size=110, seed=0))


def test_images_that_are_not_uint8_are_refused(prepare):
    with pytest.raises(UserError, match=r"uint8 \[H, W, C\], got float32"):
        load("floats", data_dir=prepare(Floats))


@pytest.mark.parametrize("name", ["cifar10", "imagenet2012"])
def test_missing_data_says_what_to_prepare_and_where(tmp_path, name):
    with pytest.raises(UserError) as caught:
        load(name, data_dir=str(tmp_path / "absent"))
    assert f"tfds build {name} --file_format=array_record --data_dir={tmp_path / 'absent'}" in str(
        caught.value
    )


def test_other_file_format_says_what_to_prepare(prepare):
    directory = prepare(Eleven)
    for path in Path(directory).rglob("dataset_info.json"):
        path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"another file format.*--file_format=array_record"):
        load("eleven", data_dir=directory)


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.99])
def test_truncated_shard_is_named(prepare, kept):
    directory = prepare(Eleven)
    shard = next(Path(directory).rglob("*-test.array_record*"))
    shard.write_bytes(shard.read_bytes()[: int(shard.stat().st_size * kept)])
    with pytest.raises(UserError, match=shard.name):
        load("eleven", data_dir=directory)


def test_foreign_feature_class_is_refused_before_its_import(prepare, tmp_path, monkeypatch):
    directory = prepare(Eleven)
    (tmp_path / "planted_module.py").write_text("class Feature: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = next(Path(directory).rglob("features.json"))
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["image"]["pythonClassName"] = "planted_module.Feature"
    path.write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"planted_module\.Feature"):
        load("eleven", data_dir=directory)
    assert "planted_module" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "../eleven",
        "/eleven",
        "eleven/../..",
        "huggingface:eleven",
        "nosuch",
        "eleven:2.0.0",
        "cifar10/nosuch",
        "",
    ],
)
def test_bad_name_is_refused(eleven, name):
    with pytest.raises(UserError, match=r"data set|data\.name"):
        load(name, data_dir=eleven)


@pytest.mark.parametrize("split", ["holdout", "validation"])
def test_empty_and_unknown_splits_are_refused(split):
    with pytest.raises(UserError, match=f"images in split '{split}'"):
        load("digits").split(split)


@pytest.mark.parametrize("config", [{"image_size": 32}, {"channels": 3}, {"num_classes": 9}])
def test_embedded_data_is_checked_against_the_config(config):
    with pytest.raises(UserError, match=f"{next(iter(config))} .* in the data"):
        load("digits", **config)


def test_batch_larger_than_the_data_is_refused(numbered):
    with pytest.raises(UserError, match="at most the 50 training images, got 51"):
        TrainBatches(numbered, batch_size=51, seed=0)


def test_batch_that_processes_cannot_share_is_refused(numbered):
    with pytest.raises(UserError, match="multiple of the 4 processes, got 10"):
        eval_batches(numbered, batch_size=10, process_count=4)


# List files (ImageNet-100)


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


# Host transforms


def test_random_resized_crop_keeps_area_and_aspect():
    """Of an image of x and y ramps, a crop's corners tell which box was taken."""
    y, x = np.mgrid[0:200, 0:250].astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(50):
        crop = random_resized_crop(
            rng, np.stack([y, x], axis=-1).repeat(2, -1)[..., [0, 2, 2]], 100, (0.25, 1.0)
        )
        height, width = (float(np.ptp(crop[..., axis])) + 2 for axis in (0, 1))
        assert 0.25 - 0.02 <= height * width / (200 * 250) <= 1.02
        assert 3 / 4 - 0.05 <= width / height <= 4 / 3 + 0.05


def test_random_resized_crop_of_an_extreme_strip_is_central():
    strip = np.zeros((10, 200, 1), np.uint8)
    strip[:, 95:105] = 255
    crop = random_resized_crop(np.random.default_rng(0), strip, 13, scale=(1.0, 1.0))
    assert crop[6, 6, 0] == 255
    assert crop[6, 0, 0] == crop[6, 12, 0] == 0


def test_centre_crop_takes_the_centre():
    image = np.zeros((256, 512, 3), np.uint8)
    image[16:240, 144:368] = 255
    assert (resize_and_centre_crop(image, 224, 256) == 255).all()


@pytest.mark.parametrize("name", ["none", "shift", "cifar"])
def test_images_of_one_size_need_no_host_transform(name):
    assert host_transform(name, 32, train=True) is host_transform(name, 32, train=False) is None


def test_synthetic_images_have_the_configured_shape_and_never_change():
    first = load("synthetic", image_size=12, channels=2, num_classes=7)
    again = load("synthetic", image_size=12, channels=2, num_classes=7)
    assert first.info.image_shape == (12, 12, 2)
    assert first.info.num_classes == 7
    np.testing.assert_array_equal(first.split("train")[5]["image"], again.split("train")[5]["image"])
