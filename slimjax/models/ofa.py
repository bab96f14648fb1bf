"""Once-for-All's supernet: kernels, expansions and depths of MobileNet V3 Large are chosen.

Paper: Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR 2020, section 3.2.

Groups: the expanded width of each block, "stage1/block1", which has one count for each expansion; with `elastic_widths`
the residual stream of each stage, "stage1", too. Choices: the side of each block's depthwise kernel,
"stage1/block1/kernel", and how many blocks a stage has, "stage1/depth". Stem, first block, tail and head are fixed.

Differs: a smaller kernel is the middle of the larger one, as in BigNAS; the authors multiply that middle by a matrix
that is learned for each layer and size. The squeeze-excites' hidden widths are those of the largest expansion (they are
fixed in `mobilenet_v3`, too); the authors' follow the expansion. In the largest network both are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.inverted_residual import InvertedResidual
from slimjax.models.mobilenet_v3 import HS, NO, RE, SE, STEM
from slimjax.nn.choices import Choice, Window
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.mixed import Depth, Make
from slimjax.nn.widths import Group, Rounding, Widths

Stage = tuple[int, int, bool, bool]
"""Channels, stride of the first block, whether its blocks squeeze, whether they have hard-swish (or ReLU)."""

STAGES: tuple[Stage, ...] = (
    (24, 2, NO, False),
    (40, 2, SE, False),
    (80, 2, NO, True),
    (112, 1, SE, True),
    (160, 2, SE, True),
)


class OFAMobileNetV3(nn.Module):
    """Stem, a fixed block, stages of as many blocks as the largest depth, tail.

    Args:
      kernels, expansions, depths: what is chosen from, ascending.
      elastic_widths: the stages' output widths are groups, too, as in BigNAS.
      stem, stem_stride: of the first convolution; its channels are those of the fixed block as well.
      tail: channels of the last convolution.
      head: width of the dense layer between pooling and the classifier.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    stages: tuple[Stage, ...] = STAGES
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    elastic_widths: bool = False
    stem: int = STEM
    stem_stride: int = 2
    tail: int = 960
    head: int = 1280
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        stem, x = Group("stem", self.stem, fixed=True), FeatureMap.of(images, widths)
        x = Conv(stem, stride=self.stem_stride, dtype=self.dtype, name="stem")(x)
        x = self.norm(name="stem_norm")(x, train).map(HS)
        x = self._block(None, stem, 3, 1, RE)(name="first")(x, train)
        for number, (channels, stride, squeezes, swishes) in enumerate(self.stages, 1):
            outer = Group(f"stage{number}", channels, fixed=not self.elastic_widths)
            activation, made, inner = HS if swishes else RE, [], x.group
            for block in range(1, self.depths[-1] + 1):
                name = f"{outer.name}/block{block}"
                made.append(self._elastic(name, inner, outer, stride, activation, squeezes))
                inner, stride = outer, 1
            depth = Choice(f"{outer.name}/depth", tuple(map(str, self.depths)))
            x = Depth(depth, tuple(made), name=outer.name)(x, train)
        x = Conv(Group("tail", self.tail, fixed=True), kernel_size=1, dtype=self.dtype, name="tail")(x)
        x = self.norm(name="tail_norm")(x, train).map(HS)
        return PoolingHead(self.num_classes, self.dtype, self.head, HS, name="head")(x)

    def _elastic(
        self,
        name: str,
        inner: Group,
        outer: Group,
        stride: int,
        activation: Callable[[jax.Array], jax.Array],
        squeezes: bool,
    ) -> Make:
        """A block whose kernel is a choice, and whose expanded width is a group."""
        counts = tuple(inner.channels * expansion for expansion in self.expansions)
        squeezed = Rounding("make_divisible", 8)(counts[-1] / 4)
        window = Window(Choice(f"{name}/kernel", tuple(map(str, self.kernels))), self.kernels)
        return self._block(
            Group(name, counts[-1], counts=counts),
            outer,
            window.full,
            stride,
            activation,
            Group(f"{name}/squeeze", squeezed, fixed=True) if squeezes else None,
            window,
        )

    def _block(
        self,
        hidden: Group | None,
        outer: Group,
        kernel: int,
        stride: int,
        activation: Callable[[jax.Array], jax.Array],
        squeeze: Group | None = None,
        window: Window | None = None,
    ) -> Make:
        shape = hidden, outer, kernel, stride, activation, squeeze, self.norm, self.dtype
        return functools.partial(InvertedResidual, *shape, window=window)
