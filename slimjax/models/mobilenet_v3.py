"""MobileNet V3 with slimmable channels. Paper: Howard et al. 2019, tables 1 (Large) and 2 (Small).

Groups: the stem, the residual stream of each stage (blocks of one output width), and the expanded width of each
block that expands: 20 in Large, 16 in Small. The first block of Large is a residual without expansion and ties the
stem to the first stage. Never narrowed: the hidden widths of the squeeze-excites (as in Joslim's code) and the two
layers before the classifier.

In Joslim's code Large has a vector of 21 entries, of which 20 live: one serves the stem and the first stage, as here.

Differs: table 2 marks a squeeze-excite after the last convolution of Small; there is none here, as in the network
of the known 2,542,856 parameters. No dropout. The norms' epsilon is the library's 1e-5.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.inverted_residual import InvertedResidual
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding, Widths

STEM = 16
RE, HS = jax.nn.relu, jax.nn.hard_swish
SE, NO = True, False


class Row(NamedTuple):
    """A row of the paper's tables: one block."""

    kernel_size: int
    expanded: int
    channels: int
    squeezes: bool
    activation: Callable[[jax.Array], jax.Array]
    stride: int


LARGE = tuple(
    Row(*row)
    for row in (
        (3, 16, 16, NO, RE, 1),
        (3, 64, 24, NO, RE, 2), (3, 72, 24, NO, RE, 1),
        (5, 72, 40, SE, RE, 2), (5, 120, 40, SE, RE, 1), (5, 120, 40, SE, RE, 1),
        (3, 240, 80, NO, HS, 2), (3, 200, 80, NO, HS, 1), (3, 184, 80, NO, HS, 1), (3, 184, 80, NO, HS, 1),
        (3, 480, 112, SE, HS, 1), (3, 672, 112, SE, HS, 1),
        (5, 672, 160, SE, HS, 2), (5, 960, 160, SE, HS, 1), (5, 960, 160, SE, HS, 1),
    )
)  # fmt: skip
SMALL = tuple(
    Row(*row)
    for row in (
        (3, 16, 16, SE, RE, 2),
        (3, 72, 24, NO, RE, 2), (3, 88, 24, NO, RE, 1),
        (5, 96, 40, SE, HS, 2), (5, 240, 40, SE, HS, 1), (5, 240, 40, SE, HS, 1),
        (5, 120, 48, SE, HS, 1), (5, 144, 48, SE, HS, 1),
        (5, 288, 96, SE, HS, 2), (5, 576, 96, SE, HS, 1), (5, 576, 96, SE, HS, 1),
    )
)  # fmt: skip


class MobileNetV3(nn.Module):
    """Inverted residuals with hard-swish and squeeze-excite.

    Args:
      blocks: the rows of the table; neighbours with the same output channels are one stage.
      tail: channels of the last convolution.
      head: width of the dense layer between pooling and the classifier.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    blocks: tuple[Row, ...] = LARGE
    tail: int = 960
    head: int = 1280
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        first = self.blocks[0]
        tied = first.stride == 1 and first.expanded == first.channels == STEM
        stem = Group("stage1" if tied else "stem", STEM)
        x = Conv(stem, stride=2, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = self.norm(name="stem_norm")(x, train).map(HS)
        stages = itertools.groupby(self.blocks, key=lambda row: row.channels)
        for number, (channels, rows) in enumerate(stages, 1):
            stage = Group(f"stage{number}", channels)
            for block, row in enumerate(rows, 1):
                x = self._block(x.group, stage, block, row)(x, train)
        tail = Group("tail", self.tail, fixed=True)
        x = Conv(tail, kernel_size=1, dtype=self.dtype, name="tail")(x)
        x = self.norm(name="tail_norm")(x, train).map(HS)
        return PoolingHead(self.num_classes, self.dtype, self.head, HS, name="head")(x)

    def _block(self, inner: Group, stage: Group, block: int, row: Row) -> InvertedResidual:
        name = f"{stage.name}/block{block}"
        squeezed = Rounding("make_divisible", 8)(row.expanded / 4)
        return InvertedResidual(
            Group(name, row.expanded) if row.expanded != inner.channels else None,
            stage,
            row.kernel_size,
            row.stride,
            row.activation,
            squeeze=Group(f"{name}/squeeze", squeezed, fixed=True) if row.squeezes else None,
            norm=self.norm,
            dtype=self.dtype,
            name=f"{stage.name}_block{block}",
        )
