"""Augmentation on the device: what each does to pixels, and that it depends on the key alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.data import augment
from slimjax.data.augment import AUGMENTATIONS, STATISTICS, colour_jitter, train_transform
from slimjax.data.dataset import DatasetInfo
from slimjax.errors import UserError

RGB = DatasetInfo("cifar10", 10, (16, 16, 3), {})
GREY = DatasetInfo("digits", 10, (8, 8, 1), {})


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def plain(monkeypatch) -> str:
    """The name of statistics that leave values in [0, 1]."""
    monkeypatch.setattr(augment, "STATISTICS", {"unit": ((0.0,), (1.0,))})
    return "unit"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_repeats_with_its_key(images, name):
    transform = jax.jit(train_transform(name, RGB))
    first, again, other = (transform(jax.random.key(seed), images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (name == "none") == bool((first == other).all())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_does_not_depend_on_sharding(images, name):
    transform = jax.jit(train_transform(name, RGB))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
    assert len(sharded.sharding.device_set) == 8
    key = jax.random.key(0)
    np.testing.assert_allclose(transform(key, sharded), transform(key, images), rtol=0, atol=1e-5)


def test_images_of_a_batch_are_augmented_independently(images, plain):
    same = np.repeat(images[:1], 16, axis=0)
    found = train_transform("mobile", RGB, statistics=plain)(jax.random.key(0), same)
    assert len(np.unique(np.asarray(found).reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize(("name", "pad", "flips"), [("shift", 2, [1]), ("cifar", 4, [1, -1])])
def test_crop_is_a_window_of_the_padded_image(images, plain, name, pad, flips):
    found = np.asarray(train_transform(name, RGB, statistics=plain)(jax.random.key(0), images))
    seen = set()
    for image, result in zip(images, np.rint(found * 255), strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        places = range(2 * pad + 1)
        windows = {
            (top, left, flip): padded[top : top + 16, left : left + 16][:, ::flip]
            for top in places
            for left in places
            for flip in flips
        }
        matches = [place for place, window in windows.items() if (window == result).all()]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 8
    assert {flip for _, _, flip in seen} == set(flips)


def test_normalisation_uses_the_named_statistics(images):
    own = augment.test_transform("none", RGB)(images)
    joslim = augment.test_transform("cifar", RGB, statistics="imagenet")(images)
    for found, name in ((own, "cifar10"), (joslim, "imagenet")):
        mean, std = map(np.array, STATISTICS[name])
        np.testing.assert_allclose(found, (images / 255 - mean) / std, atol=1e-5)


def test_digits_statistics_normalise_the_digits():
    from slimjax.data.sources import load

    source = load("digits").split("train")
    images = np.stack([source[i]["image"] for i in range(len(source))])
    normalised = augment.test_transform("none", GREY)(images)
    np.testing.assert_allclose([normalised.mean(), normalised.std()], [0, 1], atol=0.01)


def test_data_without_statistics_is_mapped_to_minus_one_to_one():
    info = DatasetInfo("own", 3, (2, 2, 4), {})
    ends = np.array([0, 255], np.uint8).repeat(16).reshape(2, 2, 2, 4)
    np.testing.assert_allclose(jnp.unique(augment.test_transform("none", info)(ends)), [-1, 1])


def test_jitter_leaves_black_black():
    black = jnp.zeros((4, 4, 3))
    np.testing.assert_array_equal(colour_jitter(jax.random.key(0), black, 0.4, 0.2), black)


def test_jitter_changes_each_of_its_quantities():
    """A grey ramp tells brightness and contrast (a line through the grey mean); colour tells saturation."""
    ramp = jnp.tile(jnp.linspace(0.3, 0.5, 9)[:, None, None], (1, 1, 3))
    keys = jax.random.split(jax.random.key(0), 64)
    ramps = np.asarray(jax.vmap(lambda key: colour_jitter(key, ramp, 0.4))(keys))
    brightness = ramps.mean((1, 2, 3)) / 0.4
    contrast = (ramps[:, 8] - ramps[:, 0]).mean((1, 2)) / 0.2 / brightness
    red = jnp.array([0.6, 0.4, 0.4]).reshape(1, 1, 3) * jnp.ones((2, 2, 3))
    reds = np.asarray(jax.vmap(lambda key: colour_jitter(key, red, 0.4))(keys))
    saturation = (reds[:, 0, 0, 0] - reds[:, 0, 0, 1]) / 0.2 / brightness
    for factor in (brightness, contrast):
        assert 0.59 < factor.min() < 0.7
        assert 1.3 < factor.max() < 1.41
    assert saturation.std() > 0.1


def test_jitter_is_the_three_changes_in_one_of_six_orders():
    """Each change written down from torchvision's documentation, applied in every order."""
    image = np.random.default_rng(0).uniform(0, 1, (5, 4, 3))  # they commute but for the clipping

    def grey(x):
        return (x @ [0.2989, 0.587, 0.114])[..., None]

    changes = (
        lambda x, f: x * f,
        lambda x, f: grey(x).mean() + f * (x - grey(x).mean()),
        lambda x, f: grey(x) + f * (x - grey(x)),
    )
    seen = set()
    for key in jax.random.split(jax.random.key(0), 40):
        factors = jax.random.uniform(jax.random.split(key, 3)[1], (3,), minval=0.6, maxval=1.4)
        found = colour_jitter(key, jnp.asarray(image, jnp.float32), 0.4)
        for order in itertools.permutations(range(3)):
            expected = image
            for change in order:
                expected = np.clip(changes[change](expected, float(factors[change])), 0, 1)
            if np.allclose(found, expected, atol=1e-6):
                seen.add(order)
                break
        else:
            pytest.fail("no order gives this image")
    assert len(seen) == 6


def test_lighting_adds_one_colour_to_an_image(images, monkeypatch, plain):
    only = {"lighting": augment.Augmentation(lighting=0.1)}
    monkeypatch.setattr(augment, "AUGMENTATIONS", only)
    found = train_transform("lighting", RGB, statistics=plain)(jax.random.key(0), images)
    added = np.asarray(found) - images / 255
    np.testing.assert_allclose(added, added[:, :1, :1] * np.ones((1, 16, 16, 1)), atol=1e-6)
    assert 0.001 < added.std() < 0.05


def test_lighting_has_the_deviation_that_the_paper_means():
    """Over many images, in levels of 255, with strength 0.1.

    Along the first axis alone, red: 0.1 * 255 * 0.2175 * 0.5675 = 3.15, green (0.5808) 3.22, blue (0.5836) 3.24.
    The other two axes add in squares. Red: 25.5 * sqrt((0.2175 * 0.5675)^2 + (0.0188 * 0.7192)^2 +
    (0.0045 * 0.4009)^2) = 3.167; green: 3.223; blue: 3.254.
    """
    keys = jax.random.split(jax.random.key(0), 20_000)
    colours = jax.vmap(lambda key: augment._lighting(key, 0.1))(keys).reshape(-1, 3)
    levels = 255 * np.asarray(colours, np.float64)
    np.testing.assert_allclose(levels.std(axis=0), [3.167, 3.223, 3.254], rtol=0.02)
    assert (np.abs(levels.mean(axis=0)) < 0.1).all()


def test_unknown_augmentation_lists_the_names():
    with pytest.raises(UserError, match="one of basic, cifar, mobile, none, shift, tfnas, got 'shfit'"):
        train_transform("shfit", RGB)


def test_unknown_statistics_list_the_names():
    with pytest.raises(UserError, match="cifar10, cifar100, digits, half, imagenet, mnist, got 'cifar'"):
        train_transform("cifar", RGB, statistics="cifar")


def test_statistics_of_other_channels_are_refused():
    with pytest.raises(UserError, match="images of 3 channels, got 1 channels"):
        augment.test_transform("none", GREY, statistics="imagenet")


def test_colour_augmentation_of_grey_images_is_refused():
    with pytest.raises(UserError, match="RGB images, got 1 channels"):
        train_transform("basic", GREY)
