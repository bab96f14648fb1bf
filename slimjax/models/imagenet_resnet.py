"""ImageNet ResNets with slimmable channels. Paper: He et al. 2016, table 1; strides in the 3x3 convolutions.

Groups: one per stage (its residual stream) and one per block (its inner width); in ResNet-18 the stem belongs to
the first stage, in ResNet-50 it is a group of its own: 12 and 21 groups, as in Joslim. AutoSlim gives the two
inner convolutions of a bottleneck widths of their own (`tied_inner=False`): 37 groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.resnet import Block
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.widths import Group, Widths

BASIC = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of the four stages, by depth."""

EXPANSION = 4
"""A bottleneck's output over its inner width."""


class ResNet(nn.Module):
    """ResNets of basic blocks or of bottlenecks.

    Args:
      depth: a key of BASIC or of BOTTLENECK.
      channels: inner widths of the four stages.
      tied_inner: the two inner convolutions of a bottleneck share a width.
      norm, dtype: as in `CifarResNet`.
    """

    depth: int = 50
    num_classes: int = 1000
    channels: tuple[int, ...] = (64, 128, 256, 512)
    tied_inner: bool = True
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        bottleneck = self.depth in BOTTLENECK
        counts = (BOTTLENECK if bottleneck else BASIC)[self.depth]
        expansion = EXPANSION if bottleneck else 1
        stages = [Group(f"stage{s}", c * expansion) for s, c in enumerate(self.channels, 1)]
        stem = Group("stem", self.channels[0]) if bottleneck else stages[0]
        x = Conv(stem, 7, 2, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="stem_norm")(x, train).map(jax.nn.relu).map(_max_pool)
        for stage, channels, blocks in zip(stages, self.channels, counts, strict=True):
            for block in range(1, blocks + 1):
                inner = self._inner(f"{stage.name}/block{block}", channels, bottleneck)
                stride = 2 if block == 1 and stage != stages[0] else 1
                name = f"{stage.name}_block{block}"
                x = Block(inner, stage, stride, True, self.norm, self.dtype, name=name)(x, train)
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)

    def _inner(self, name: str, channels: int, bottleneck: bool) -> tuple[Group, ...]:
        if bottleneck and not self.tied_inner:
            return Group(f"{name}/1", channels), Group(f"{name}/2", channels)
        return (Group(name, channels),) * (2 if bottleneck else 1)


def _max_pool(value: jax.Array) -> jax.Array:
    """3x3, stride 2, padded by one."""
    return nn.max_pool(value, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
