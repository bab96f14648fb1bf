"""A Once-for-All network of two stages for images of 8 pixels, which may be resized to 6."""

import functools

import numpy as np

from slimjax.models.ofa import OFAMobileNetV3
from slimjax.nn.widths import Rounding
from slimjax.supernet import Supernet

OPTIONS = {
    "stages": ((8, 2, False, False), (8, 1, True, True)),
    "kernels": (3, 5),
    "expansions": (2, 3),
    "depths": (1, 2),
    "stem": 4,
    "tail": 8,
    "head": 8,
}
RESOLUTIONS = (6, 8)


@functools.cache
def tiny(resolutions=RESOLUTIONS, **fields) -> Supernet:
    """With five classes. The same object each time: it has been traced then."""
    model = OFAMobileNetV3(num_classes=5, **OPTIONS | fields)
    return Supernet(model, (8, 8, 3), Rounding("make_divisible", 8), 0.5, resolutions=resolutions)


PATH = {
    "stage1/block1": 8,
    "stage1/block2": 24,
    "stage1/block1/kernel": "3",
    "stage1/depth": "2",
    "stage1/block2/kernel": "5",
    "stage2/block1": 16,
    "stage2/block1/kernel": "3",
    "stage2/depth": "1",
}
"""A subnet that is neither the largest nor the smallest in every axis that it has."""


def subnet_of(net: Supernet, **more) -> np.ndarray:
    return net.space.from_channels(PATH | more)
