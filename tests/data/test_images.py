"""Crops and sizes on the host."""

import numpy as np
import pytest
from PIL import Image

from slimjax.data.images import host_transform, random_resized_crop, resize_and_centre_crop


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


@pytest.mark.parametrize(
    ("height", "width", "resized", "corner"),
    [
        # The long side: 256 * 500 / 375 = 341.33, so 341. Corners: (256 - 224) / 2 = 16, (341 - 224) / 2 = 58.5, so 58.
        (375, 500, (256, 341), (16, 58)),
        (500, 375, (341, 256), (58, 16)),
        # 256 * 499 / 375 = 340.65, so 340 (not 341); (340 - 224) / 2 = 58.
        (375, 499, (256, 340), (16, 58)),
        # Nothing to resize; (343 - 224) / 2 = 59.5, of which 60 is the even neighbour (not 59).
        (343, 256, (343, 256), (60, 16)),
        # 256 * 300 / 200 = 384; (384 - 224) / 2 = 80.
        (200, 300, (256, 384), (16, 80)),
    ],
)
def test_test_images_are_resized_and_cropped_as_the_papers_loaders_do(height, width, resized, corner):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    whole = np.asarray(Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR))
    top, left = corner
    expected = whole[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(resize_and_centre_crop(image, 224, 256), expected)


@pytest.mark.parametrize("name", ["none", "shift", "cifar"])
def test_images_of_one_size_need_no_host_transform(name):
    assert host_transform(name, 32, train=True) is host_transform(name, 32, train=False) is None
