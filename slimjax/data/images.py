"""Host-side image work (numpy and PIL): decoding, and bringing images of many sizes to one size.

Only what must happen before images can be stacked into a batch is done here; all else runs on the device
(`augment.py`).
"""

import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from slimjax.data.augment import find
from slimjax.data.dataset import Example

_MODES = {1: "L", 3: "RGB"}
_ASPECT_RATIO = (3 / 4, 4 / 3)
_CROP_FRACTION = 224 / 256  # the test protocol: resize to 256, crop 224
_ATTEMPTS = 10


def decode(data: bytes, channels: int) -> np.ndarray:
    """Returns a JPEG or PNG as uint8 [H, W, C]; grey and CMYK files become what `channels` says."""
    with Image.open(io.BytesIO(data)) as image:
        return _array(image.convert(_MODES[channels]))


def host_transform(name: str, size: int, train: bool) -> Callable[..., Example] | None:
    """Returns the host's share of augmentation `name`, or None if images of one size need nothing.

    Returns:
        train: `(example, rng) -> example`, a random resized crop (for Grain's `random_map`);
        test: `example -> example`, resize and centre crop (for `map`).

    Raises:
        UserError: no such augmentation.
    """
    scale = find(name).crop_scale
    if scale is None:
        return None
    if train:
        return partial(_train_example, size=size, scale=scale)
    return partial(_test_example, size=size, resize=round(size / _CROP_FRACTION))


def _train_example(
    example: Example, rng: np.random.Generator, *, size: int, scale: tuple[float, float]
) -> Example:
    return {**example, "image": random_resized_crop(rng, example["image"], size, scale)}


def _test_example(example: Example, *, size: int, resize: int) -> Example:
    return {**example, "image": resize_and_centre_crop(example["image"], size, resize)}


def random_resized_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = _ASPECT_RATIO,
) -> np.ndarray:
    """Crops a random box and resizes it (bilinear) to uint8 [size, size, C].

    Paper: Szegedy et al. 2015, section 6; the form that all six systems train with.

    Args:
        image: uint8 [H, W, C].
        scale: range of the box's share of the area, uniform.
        ratio: range of the box's width / height, log-uniform.
    """
    top, left, height, width = _random_box(rng, image.shape[0], image.shape[1], scale, ratio)
    return _resize(image[top : top + height, left : left + width], size, size)


def _random_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width) in pixels; the largest legal centre box if ten draws do not fit."""
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
            return int(top), int(left), box_height, box_width
    box_width = min(width, max(1, round(height * ratio[1])))
    box_height = min(height, max(1, round(width / ratio[0])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resize_and_centre_crop(image: np.ndarray, size: int, resize: int) -> np.ndarray:
    """Resizes the shorter side to `resize` pixels and crops the centre: uint8 [size, size, C].

    As the papers' test loaders have it, to the pixel: the longer side is rounded down, and of a corner that
    falls between two pixels the even one is taken.
    """
    short = min(image.shape[:2])
    height, width = (resize * side // short for side in image.shape[:2])
    top, left = round((height - size) / 2), round((width - size) / 2)
    return _resize(image, height, width)[top : top + size, left : left + size]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    flat = image[..., 0] if image.shape[-1] == 1 else image  # PIL's grey images have no channel axis
    return _array(Image.fromarray(flat).resize((width, height), Image.Resampling.BILINEAR))


def _array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
