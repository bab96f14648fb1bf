"""MobileNet V1 with slimmable channels. Paper: Howard et al. 2017, table 1.

Groups: the stem and the output of each of the 13 separable blocks; a depthwise convolution stays in the
group of its input, so a group holds one pointwise output and the depthwise layer after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.activation import ACTIVATIONS, Activation
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, DepthwiseConv, FeatureMap
from slimjax.nn.widths import Group, Rounding, Widths

# (channels, stride) of each separable block on ImageNet.
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


class MobileNetV1(nn.Module):
    """Depthwise-separable blocks; nothing is tied but depthwise layers to their inputs.

    Args:
      activation: after every norm. ReLU6 is that of the released slimmable networks; the paper's text has ReLU.
      multiplier: all channels times this, rounded as US-Net rounds them.
      small_images: stem of stride 1, for images of 32 pixels (the 224-pixel strides are 2 for the stem
        and for four blocks). The usual CIFAR variant; the papers do not define one.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    multiplier: float = 1.0
    small_images: bool = False
    activation: Activation = "relu6"
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        scaled, activate = Rounding("make_divisible", 8), ACTIVATIONS[self.activation]
        stem = Group("stem", scaled(32 * self.multiplier))
        stride = 1 if self.small_images else 2
        x = Conv(stem, stride=stride, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="stem_norm")(x, train).map(activate)
        for i, (channels, stride) in enumerate(BLOCKS, 1):
            group = Group(f"block{i}", scaled(channels * self.multiplier))
            x = DepthwiseConv(stride=stride, dtype=self.dtype, name=f"block{i}_depthwise")(x)
            x = self.norm(name=f"block{i}_norm1")(x, train).map(activate)
            x = Conv(group, kernel_size=1, dtype=self.dtype, name=f"block{i}_pointwise")(x)
            x = self.norm(name=f"block{i}_norm2")(x, train).map(activate)
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)
