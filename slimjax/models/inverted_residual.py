"""MobileNet V2 and MNasNet with slimmable channels: networks of inverted residuals.

Papers: Sandler et al. 2018, table 2; Tan et al. 2019, the network without squeeze-excite (MNasNet-B1).
Groups: the stem, the residual stream of each of the seven stages, and the expanded width of each of the
16 blocks that expand: 24 in all, in both networks and as in Joslim. US-Net keeps the last 1280 channels fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.activation import ACTIVATIONS, Activation
from slimjax.nn.choices import Window
from slimjax.nn.heads import PoolingHead, SqueezeExcite
from slimjax.nn.layers import BatchNorm, Conv, DepthwiseConv, FeatureMap
from slimjax.nn.widths import Group, Rounding, Widths

Stage = tuple[int, int, int, int, int]
"""Expansion, channels, blocks, stride of the first block on ImageNet, kernel size."""

MOBILENET_V2: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
MNASNET: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (3, 24, 3, 2, 3),
    (3, 40, 3, 2, 5),
    (6, 80, 3, 2, 5),
    (6, 96, 2, 1, 3),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class InvertedResidual(nn.Module):
    """expand, depthwise, squeeze-excite, project; added to the input where shapes allow.

    Args:
      hidden: the expanded width; None: the block does not expand.
      squeeze: hidden width of the squeeze-excite; None: none. `squeeze_gate`, `squeeze_activation`: its functions, by
        default MobileNet V3's.
      window: the side of the depthwise kernel, where a choice sets it.
      drop_connect: (number of the block, probability with which its branch is dropped for an image); only in training,
        and only where the classifier's input is dropped, too (`slots.Slot`). Paper: Huang et al. 2016.
    """

    hidden: Group | None
    outer: Group
    kernel_size: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    squeeze: Group | None
    norm: Callable[..., nn.Module]
    dtype: Any
    squeeze_gate: Callable[[jax.Array], jax.Array] = jax.nn.hard_sigmoid
    squeeze_activation: Callable[[jax.Array], jax.Array] = jax.nn.relu
    window: Window | None = None
    drop_connect: tuple[int, float] = (0, 0.0)

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool) -> FeatureMap:
        y = x
        if self.hidden is not None:
            y = Conv(self.hidden, kernel_size=1, dtype=self.dtype, name="expand")(y)
            y = self.norm(name="expand_norm")(y, train).map(self.activation)
        y = DepthwiseConv(self.kernel_size, self.stride, self.dtype, self.window, name="depthwise")(y)
        y = self.norm(name="depthwise_norm")(y, train).map(self.activation)
        if self.squeeze is not None:
            functions = self.squeeze_gate, self.dtype, self.squeeze_activation
            y = SqueezeExcite(self.squeeze, *functions, name="squeeze_excite")(y)
        y = Conv(self.outer, kernel_size=1, dtype=self.dtype, name="project")(y)
        y = self.norm(name="project_norm")(y, train)
        if self.stride != 1 or x.group != self.outer:
            return y
        dropout, (number, rate) = x.widths.dropout, self.drop_connect
        if dropout is not None and rate:
            factors = dropout.drops_path(number, rate)[:, None, None, None]
            y = y.map(lambda value: value * factors.astype(value.dtype))
        return x + y


class InvertedResidualNet(nn.Module):
    """MobileNet V2; with `stages=MNASNET`, MNasNet.

    Args:
      multiplier: all channels times this, rounded as US-Net rounds them (24 and 40 become 40 and 64 at 1.5,
        as AutoSlim's published channels imply); the tail only above 1.
      activation: after all norms but those of linear bottlenecks. ReLU6, also in AutoSlim's MNasNet;
        MNasNet's own paper has ReLU.
      fixed_tail: the last 1280 channels are never narrowed (US-Net; S-MobileNetV2 has the same counts).
      small_images: stem and second stage have stride 1, for images of 32 pixels. The usual CIFAR variant;
        the papers do not define one.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    multiplier: float = 1.0
    stages: tuple[Stage, ...] = MOBILENET_V2
    activation: Activation = "relu6"
    fixed_tail: bool = True
    small_images: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        stem, activate = Group("stem", self._scaled(32)), ACTIVATIONS[self.activation]
        stride = 1 if self.small_images else 2
        x = Conv(stem, stride=stride, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="stem_norm")(x, train).map(activate)
        for number, stage in enumerate(self.stages, 1):
            x = self._stage(x, train, f"stage{number}", stage, small=self.small_images and number == 2)
        tail = Group("tail", self._scaled(1280, at_least=1.0), fixed=self.fixed_tail)
        x = Conv(tail, kernel_size=1, dtype=self.dtype, name="tail")(x)
        x = self.norm(name="tail_norm")(x, train).map(activate)
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)

    def _stage(self, x: FeatureMap, train: bool, name: str, stage: Stage, small: bool) -> FeatureMap:
        expansion, channels, blocks, stride, kernel_size = stage
        outer = Group(name, self._scaled(channels))
        for block in range(1, blocks + 1):
            wide = expansion * x.group.channels
            hidden = Group(f"{name}/block{block}", wide, quantum=expansion) if expansion > 1 else None
            x = InvertedResidual(
                hidden,
                outer,
                kernel_size,
                stride if block == 1 and not small else 1,
                ACTIVATIONS[self.activation],
                squeeze=None,
                norm=self.norm,
                dtype=self.dtype,
                name=f"{name}_block{block}",
            )(x, train)
        return x

    def _scaled(self, channels: int, at_least: float = 0.0) -> int:
        return Rounding("make_divisible", 8)(channels * max(at_least, self.multiplier))
