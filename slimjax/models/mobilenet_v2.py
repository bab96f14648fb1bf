"""MobileNet V2 with slimmable channels. Paper: Sandler et al. 2018, table 2.

Groups: the stem, the residual stream of each of the seven stages, and the expanded width of each of the
16 blocks that expand: 24 in all, as in Joslim. US-Net keeps the last 1280 channels fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.layers import BatchNorm, Conv, DepthwiseConv, FeatureMap, PoolingHead
from slimjax.widths import Group, Widths

# (expansion, channels, blocks, stride on ImageNet, stride on 32-pixel images) of each stage.
STAGES = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 2),
    (6, 64, 4, 2, 2),
    (6, 96, 3, 1, 1),
    (6, 160, 3, 2, 2),
    (6, 320, 1, 1, 1),
)


class InvertedResidual(nn.Module):
    """expand (unless `hidden` is None), depthwise, project; added to the input where shapes allow."""

    hidden: Group | None
    outer: Group
    stride: int
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool) -> FeatureMap:
        y = x
        if self.hidden is not None:
            y = Conv(self.hidden, kernel_size=1, dtype=self.dtype, name="expand")(y)
            y = self.norm(name="expand_norm")(y, train).map(jax.nn.relu6)
        y = DepthwiseConv(stride=self.stride, dtype=self.dtype, name="depthwise")(y)
        y = self.norm(name="depthwise_norm")(y, train).map(jax.nn.relu6)
        y = Conv(self.outer, kernel_size=1, dtype=self.dtype, name="project")(y)
        y = self.norm(name="project_norm")(y, train)
        return x + y if self.stride == 1 and x.group == self.outer else y


class MobileNetV2(nn.Module):
    """Inverted residuals with ReLU6.

    Args:
      multiplier: all channels times this; the tail only above 1 (AutoSlim's 1.5x supernet).
      fixed_tail: the last 1280 channels are never narrowed (US-Net; S-MobileNetV2 has the same counts).
      small_images: stem and second stage have stride 1, for images of 32 pixels. The usual CIFAR variant;
        the papers do not define one.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    multiplier: float = 1.0
    fixed_tail: bool = True
    small_images: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        stem = Group("stem", int(32 * self.multiplier))
        stride = 1 if self.small_images else 2
        x = Conv(stem, stride=stride, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="stem_norm")(x, train).map(jax.nn.relu6)
        for number, (expansion, channels, blocks, large, small) in enumerate(STAGES, 1):
            stage = Group(f"stage{number}", int(channels * self.multiplier))
            for block in range(1, blocks + 1):
                hidden = self._hidden(x.group, expansion, f"stage{number}/block{block}")
                stride = (small if self.small_images else large) if block == 1 else 1
                name = f"stage{number}_block{block}"
                x = InvertedResidual(hidden, stage, stride, self.norm, self.dtype, name=name)(x, train)
        tail = Group("tail", int(1280 * max(1.0, self.multiplier)), fixed=self.fixed_tail)
        x = Conv(tail, kernel_size=1, dtype=self.dtype, name="tail")(x)
        x = self.norm(name="tail_norm")(x, train).map(jax.nn.relu6)
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)

    @staticmethod
    def _hidden(inner: Group, expansion: int, name: str) -> Group | None:
        return Group(name, expansion * inner.channels, unit=expansion) if expansion > 1 else None
