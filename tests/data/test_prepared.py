"""Data sets that TFDS has prepared: their batches, and what is said when something is wrong."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from slimjax.data.images import host_transform
from slimjax.data.pipeline import TrainBatches
from slimjax.data.sources import load
from slimjax.errors import UserError


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
    code_path = None  # TFDS need not look for a list of check sums beside this file
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
