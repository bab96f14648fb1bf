"""Sources: what is in a split, and what is said when the configuration disagrees."""

import numpy as np
import pytest

from slimjax.data.dataset import Source
from slimjax.data.sources import load
from slimjax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load("digits", holdout=97)


def indices(source: Source) -> set[int]:
    return set(source.indices.tolist())


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


@pytest.mark.parametrize("split", ["holdout", "validation"])
def test_empty_and_unknown_splits_are_refused(split):
    with pytest.raises(UserError, match=f"images in split '{split}'"):
        load("digits").split(split)


@pytest.mark.parametrize("config", [{"image_size": 32}, {"channels": 3}, {"num_classes": 9}])
def test_embedded_data_is_checked_against_the_config(config):
    with pytest.raises(UserError, match=f"{next(iter(config))} .* in the data"):
        load("digits", **config)


def test_synthetic_images_have_the_configured_shape_and_never_change():
    first = load("synthetic", image_size=12, channels=2, num_classes=7)
    again = load("synthetic", image_size=12, channels=2, num_classes=7)
    assert first.info.image_shape == (12, 12, 2)
    assert first.info.num_classes == 7
    np.testing.assert_array_equal(first.split("train")[5]["image"], again.split("train")[5]["image"])
