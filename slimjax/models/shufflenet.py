"""ShuffleNet with slimmable channels. Paper: Zhang et al. 2018, table 1, with three conv groups.

Groups: one for the stem, of which all stage outputs are 10, 20 and 40 times as many, and one for the inner
width of each block: 17 in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import (
    AveragePool,
    BatchNorm,
    Concatenate,
    Conv,
    DepthwiseConv,
    FeatureMap,
)
from slimjax.nn.widths import Group, Widths

CONV_GROUPS = 3
COMPRESS = 4
"""A unit's output over its inner width."""

STEM = 48
"""Channels of the stem at width 2, the largest that the Slimmable Networks paper trains."""

STAGES = (10, 20, 40)
"""Outputs of the three stages over the stem's."""


class Unit(nn.Module):
    """1x1 grouped, channel shuffle, 3x3 depthwise, 1x1 grouped; a norm after each, ReLU first and last.

    At stride 1 the input is added; at stride 2 its 3x3 average is concatenated.
    Differs: conv groups are interleaved (see `layers.Conv`), and the shuffle is a fixed permutation within
    three neighbours, where the paper transposes all channels; every group receives channels of all groups in
    both. It is done by the second 1x1 convolution: the layers in between treat each channel alone.

    Args:
      conv_groups: of the first convolution.
    """

    inner: Group
    outer: Group
    stride: int
    conv_groups: int
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool) -> FeatureMap:
        y = Conv(self.inner, 1, conv_groups=self.conv_groups, dtype=self.dtype, name="compress")(x)
        y = self.norm(name="compress_norm")(y, train).map(jax.nn.relu)
        y = DepthwiseConv(stride=self.stride, dtype=self.dtype, name="depthwise")(y)
        y = self.norm(name="depthwise_norm")(y, train)
        added = self.stride == 1
        branch = self.outer if added else self.outer.base.times(self.outer.ratio - x.group.ratio)
        expand = Conv(branch, 1, conv_groups=CONV_GROUPS, shuffled=True, dtype=self.dtype, name="expand")
        y = self.norm(name="expand_norm")(expand(y), train)
        y = x + y if added else Concatenate(name="join")(AveragePool(name="shortcut")(x), y)
        return y.map(jax.nn.relu)


class ShuffleNet(nn.Module):
    """ShuffleNet, at width 2 by default.

    Differs: the max-pool is not padded (112 pixels become 55, in the paper 56), as the published costs of
    S-ShuffleNet have it.

    Args:
      multiplier: all channels times this.
      units: of the three stages.
      small_images: stem of stride 1 and no max-pool, for images of 32 pixels. The papers do not define this.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    multiplier: float = 1.0
    units: tuple[int, ...] = (4, 8, 4)
    small_images: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        stem = Group("stem", int(STEM * self.multiplier), multiple_of=CONV_GROUPS)
        stride = 1 if self.small_images else 2
        x = Conv(stem, stride=stride, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="stem_norm")(x, train).map(jax.nn.relu)
        x = x if self.small_images else x.map(lambda value: nn.max_pool(value, (3, 3), (2, 2)))
        for stage, (times, units) in enumerate(zip(STAGES, self.units, strict=True), 1):
            outer = stem.times(times)
            for unit in range(1, units + 1):
                inner = self._inner(outer, f"stage{stage}/unit{unit}")
                groups = 1 if x.group == stem else CONV_GROUPS  # the paper's: 24 channels are few
                stride, name = 2 if unit == 1 else 1, f"stage{stage}_unit{unit}"
                x = Unit(inner, outer, stride, groups, self.norm, self.dtype, name=name)(x, train)
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)

    @staticmethod
    def _inner(outer: Group, name: str) -> Group:
        """A quarter of the output, rounded down to a multiple of the conv groups."""
        channels = outer.channels // (COMPRESS * CONV_GROUPS) * CONV_GROUPS
        return Group(name, channels, multiple_of=CONV_GROUPS)
