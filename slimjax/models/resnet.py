"""CIFAR ResNets with slimmable channels: depth 6n + 2, three stages of n basic blocks.

Groups: one per stage (its residual stream; the stem belongs to the first) and one per block (its inner
width): 12, 18, 24 and 30 groups at depth 20, 32, 44 and 56, as in Joslim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap, PadShortcut
from slimjax.nn.widths import Group, Widths


class Block(nn.Module):
    """conv-norm-relu for each inner group, conv-norm, added to the shortcut, relu.

    Args:
      inner: one group: a basic block of two 3x3 convolutions. Two: a bottleneck of 1x1, 3x3 and 1x1.
      outer: the stage's residual stream.
      projects: where the input is of another group, the shortcut is a 1x1 convolution with a norm; else it
        has no parameters (He et al.'s option A).
    """

    inner: tuple[Group, ...]
    outer: Group
    stride: int
    projects: bool
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool) -> FeatureMap:
        kernels = (3, 3) if len(self.inner) == 1 else (1, 3, 1)
        strided = kernels.index(3)
        y = x
        for i, (group, kernel) in enumerate(zip((*self.inner, self.outer), kernels, strict=True)):
            if i:
                y = y.map(jax.nn.relu)
            stride = self.stride if i == strided else 1
            y = Conv(group, kernel, stride, dtype=self.dtype, name=f"conv{i + 1}")(y)
            y = self.norm(name=f"norm{i + 1}")(y, train)
        return (y + self._shortcut(x, train)).map(jax.nn.relu)

    def _shortcut(self, x: FeatureMap, train: bool) -> FeatureMap:
        if x.group == self.outer:
            return x
        if not self.projects:
            return PadShortcut(self.outer, self.stride, name="shortcut")(x)
        x = Conv(self.outer, 1, self.stride, dtype=self.dtype, name="shortcut")(x)
        return self.norm(name="shortcut_norm")(x, train)


class CifarResNet(nn.Module):
    """ResNet for small images. Paper: He et al. 2016, section 4.2 (3x3 stem, option-A shortcuts).

    Args:
      depth: 6n + 2.
      multiplier: all channels times this (the papers' 1x to 5x).
      channels: of the three stages, before the multiplier.
      stem_stride: 1; 2 halves the resolution of images larger than CIFAR's need.
      norm: called as `norm(name=...)` for every normalisation layer.
      dtype: compute type of convolutions and the classifier; parameters and norms stay float32.
    """

    depth: int = 20
    num_classes: int = 10
    multiplier: int = 1
    channels: tuple[int, ...] = (16, 32, 64)
    stem_stride: int = 1
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        stages = [Group(f"stage{s}", c * self.multiplier) for s, c in enumerate(self.channels, 1)]
        x = FeatureMap.of(images, widths)
        x = Conv(stages[0], stride=self.stem_stride, dtype=self.dtype, name="stem")(x)
        x = self.norm(name="stem_norm")(x, train).map(jax.nn.relu)
        for stage in stages:
            for block in range(1, (self.depth - 2) // 6 + 1):
                name = f"{stage.name}_block{block}"
                inner = Group(f"{stage.name}/block{block}", stage.channels)
                stride = 2 if block == 1 and stage != stages[0] else 1
                x = Block((inner,), stage, stride, False, self.norm, self.dtype, name=name)(x, train)
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)
