"""Augmentation on the device: pure functions of a key and a batch, to be jitted with the train step.

Every image has a key of its own, split from the batch's key by its row. So what an image gets depends on
the key and its place in the global batch, and never on how the batch is sharded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from slimjax.data.dataset import DatasetInfo, choices, mistake


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, in this order. All zero: nothing.

    Attributes:
        crop_scale: range of the area kept by the random resized crop, which the host does (`images.py`).
        pad: pixels of black border added before a random crop back to the image's size.
        flip: mirror left-right with probability 1/2.
        jitter: brightness, contrast and saturation each change by a factor in [1 - jitter, 1 + jitter].
        hue: the hue shifts by a share of the colour circle in [-hue, hue].
        lighting: standard deviation of the noise along the colour axes of ImageNet.
    """

    crop_scale: tuple[float, float] | None = None
    pad: int = 0
    flip: bool = False
    jitter: float = 0.0
    hue: float = 0.0
    lighting: float = 0.0


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "none": Augmentation(),
        "shift": Augmentation(pad=2),
        "cifar": Augmentation(pad=4, flip=True),
        # Slimmable nets' two ImageNet recipes; "mobile" is US-Net's, AutoSlim's and Joslim's.
        "basic": Augmentation(crop_scale=(0.08, 1.0), flip=True, jitter=0.4, lighting=0.1),
        "mobile": Augmentation(crop_scale=(0.25, 1.0), flip=True, jitter=0.4, lighting=0.1),
        # TF-NAS's search on ImageNet-100.
        "tfnas": Augmentation(crop_scale=(0.08, 1.0), flip=True, jitter=0.4, hue=0.2),
    }
)

# Mean and standard deviation of each channel over the training images, of values in [0, 1].
STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "digits": ((0.3053,), (0.3760,)),
        "mnist": ((0.1307,), (0.3081,)),
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "half": ((0.5,), (0.5,)),  # maps [0, 1] to [-1, 1], for any number of channels
    }
)
_STATISTICS_OF = MappingProxyType({"mnist5k": "mnist", "imagenet2012": "imagenet", "imagenet100": "imagenet"})

# Krizhevsky et al. 2012, section 4.1: principal axes (columns) and deviations of ImageNet's RGB values.
_RGB_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045], np.float32)
_RGB_AXES = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)

_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # 0 is brightness


def find(name: str) -> Augmentation:
    """Returns the augmentation called `name`. Raises UserError if there is none."""
    if name not in AUGMENTATIONS:
        raise mistake("data.augment", choices(AUGMENTATIONS), repr(name), "")
    return AUGMENTATIONS[name]


def train_transform(
    name: str, info: DatasetInfo, *, statistics: str | None = None
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns `(key, images uint8 [B, H, W, C]) -> float32 [B, H, W, C]`: augment, then normalise.

    Args:
        name: a row of AUGMENTATIONS.
        statistics: a row of STATISTICS; None takes the data set's own, or "half" if it has none. (Joslim
            normalises CIFAR by "imagenet".)

    Raises:
        UserError: an unknown name, or a colour augmentation of images that are not RGB.
    """
    augmentation = find(name)
    normalise = _normaliser(info, statistics)
    if (augmentation.jitter or augmentation.lighting) and info.image_shape[-1] != 3:
        got = f"{info.image_shape[-1]} channels"
        raise mistake(
            f"data.augment {name!r}", "RGB images", got, f"{info.name} could use 'shift' or 'none'."
        )

    def transform(key: jax.Array, images: jax.Array) -> jax.Array:
        keys = jax.random.split(key, images.shape[0])
        return normalise(jax.vmap(lambda key, image: _augment(key, image, augmentation))(keys, images))

    return transform


def test_transform(
    name: str,
    info: DatasetInfo,
    *,
    statistics: str | None = None,  # noqa: PT028 (no test)
) -> Callable[[jax.Array], jax.Array]:
    """Returns `images uint8 [B, H, W, C] -> float32 [B, H, W, C]`: normalise only. Arguments as above."""
    find(name)
    normalise = _normaliser(info, statistics)
    return lambda images: normalise(_unit(images))


test_transform.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it by its name


def _normaliser(info: DatasetInfo, statistics: str | None) -> Callable[[jax.Array], jax.Array]:
    own = _STATISTICS_OF.get(info.name, info.name)
    name = statistics or (own if own in STATISTICS else "half")
    if name not in STATISTICS:
        raise mistake("data.statistics", choices(STATISTICS), repr(name), "")
    channels = info.image_shape[-1]
    mean, std = (np.array(values, np.float32).reshape(1, 1, 1, -1) for values in STATISTICS[name])
    if mean.size not in (1, channels):
        got = f"{channels} channels in {info.name!r}"
        raise mistake(f"data.statistics {name!r}", f"images of {mean.size} channels", got, "Choose another.")
    return lambda images: (images - mean) / std


def _unit(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255


def _augment(key: jax.Array, image: jax.Array, augmentation: Augmentation) -> jax.Array:
    """uint8 [H, W, C] -> float32 [H, W, C] in [0, 1] (lighting may leave that range)."""
    crop_key, flip_key, jitter_key, lighting_key = jax.random.split(key, 4)
    if augmentation.pad:
        border = (augmentation.pad, augmentation.pad)
        image = pix.random_crop(crop_key, jnp.pad(image, (border, border, (0, 0))), image.shape)
    if augmentation.flip:
        image = pix.random_flip_left_right(flip_key, image)
    image = _unit(image)
    if augmentation.jitter:
        image = colour_jitter(jitter_key, image, augmentation.jitter, augmentation.hue)
    if augmentation.lighting:
        image += _lighting(lighting_key, augmentation.lighting)
    return image


def colour_jitter(key: jax.Array, image: jax.Array, strength: float, hue: float = 0.0) -> jax.Array:
    """Changes brightness, contrast, saturation (and hue) of one RGB image [H, W, 3] in random order.

    The first three are one formula: a blend of the image with black, with its mean grey, or with its grey
    version (values in [0, 1]). So a random order costs a choice of what to blend with, and no branches.

    Differs: float32 instead of rounding to 8 bits after each change, as PIL does. dm-pix's brightness adds
    and its saturation works in HSV, which is not the augmentation of the papers; its hue is.
    """
    order_key, factor_key, hue_key = jax.random.split(key, 3)
    changes = 4 if hue else 3
    factors = jax.random.uniform(factor_key, (changes,), minval=1 - strength, maxval=1 + strength)
    shift = jax.random.uniform(hue_key, (), minval=-hue, maxval=hue)
    order = jax.random.permutation(order_key, changes)
    for place in range(changes):
        change = order[place]
        blended = _blend(image, change, factors[change])
        image = jnp.where(change == _HUE, pix.adjust_hue(image, shift), blended) if hue else blended
    return image


def _blend(image: jax.Array, change: jax.Array, factor: jax.Array) -> jax.Array:
    grey = pix.rgb_to_grayscale(image, keep_dims=True)
    other = jnp.where(change == _CONTRAST, grey.mean(), jnp.where(change == _SATURATION, grey, 0.0))
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _lighting(key: jax.Array, strength: float) -> jax.Array:
    """One random colour [1, 1, 3] to add to the whole image, whose values are in [0, 1].

    Paper: Krizhevsky et al. 2012, section 4.1. With `strength` 0.1 a channel's deviation is 3.2 levels of 255.
    Differs: the slimmable networks' released loader draws the same amounts but adds them to 8-bit pixels and
    truncates, so that a channel stays as it is or loses one level. We take that for an accident.
    """
    amounts = strength * jax.random.normal(key, (3,)) * _RGB_DEVIATIONS
    return jnp.dot(_RGB_AXES, amounts).reshape(1, 1, 3)
