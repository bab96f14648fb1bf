"""VGG with batch norm and slimmable channels. Paper: Simonyan and Zisserman 2015, table 1, columns A, B, D and E.

Groups: one for each convolution, and one for each hidden dense layer: nothing is tied. 13 at depth 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.checks import Rule, check
from slimjax.nn.heads import PoolingHead, classify
from slimjax.nn.layers import BatchNorm, Conv, Dense, FeatureMap, Layer
from slimjax.nn.widths import Group, Widths

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of the five stages, by depth: the paper counts its three dense layers too."""

DEPTH = Rule(lambda value: value in CONVOLUTIONS, f"one of {', '.join(map(str, CONVOLUTIONS))}")
STAGES = Rule(lambda value: 1 <= len(value) <= 5, "channels of 1 to 5 stages")


class Flatten(Layer):
    """[B, H, W, C] to [B, C * H * W], the pixels of a channel next to each other: H * W times the group.

    Differs: from flattening [B, H, W, C] as it is, by the order: leading channels stay a leading slice.
    """

    def __call__(self, x: FeatureMap) -> FeatureMap:
        batch, height, width, _ = x.value.shape
        value = jnp.moveaxis(x.value, -1, 1).reshape(batch, -1)
        return x.with_value(value, x.group.times(height * width))


class VGG(nn.Module):
    """3x3 convolutions in stages, a norm and ReLU after each, a max-pool after each stage.

    Without hidden layers it is the usual network for CIFAR, with a mean over what the stages leave (one pixel of
    images of 32). With `hidden=(4096, 4096)` and images of 224 pixels it is the paper's for ImageNet.

    Differs: from the paper, by the norms, which it did not have yet, and by no biases in convolutions, because the
    norms have them. Its dropout of hidden layers is left out: only what an algorithm asks for is done, before the
    classifier. A max-pool rounds an odd side up, so that images of any size pass; 32 and 224 pixels never have one.

    Args:
      depth: a key of CONVOLUTIONS.
      multiplier: all channels of convolutions times this, rounded down.
      channels: of the stages, before the multiplier. Fewer than five leave out the last stages.
      hidden: widths of the dense layers with bias and ReLU between the flattened map and the classifier, each a
        group of its own; none: a global mean instead.
      norm, dtype: as in `CifarResNet`.

    Raises:
      BadValue: an unknown depth, or too many stages.
    """

    depth: int = 16
    num_classes: int = 10
    multiplier: float = 1.0
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: tuple[int, ...] = ()
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        x = FeatureMap.of(images, widths)
        for stage, channels, convolutions in self._stages():
            for i in range(1, convolutions + 1):
                group = Group(f"stage{stage}/conv{i}", channels)
                x = Conv(group, dtype=self.dtype, name=f"stage{stage}_conv{i}")(x)
                x = self.norm(name=f"stage{stage}_norm{i}")(x, train).map(jax.nn.relu)
            x = x.map(max_pool_2x2)
        if not self.hidden:
            return PoolingHead(self.num_classes, self.dtype, name="head")(x)
        x = Flatten(name="flatten")(x)
        for i, channels in enumerate(self.hidden, 1):
            x = Dense(Group(f"hidden{i}", channels), dtype=self.dtype, name=f"hidden{i}")(x).map(jax.nn.relu)
        return classify(x, self.num_classes, self.dtype)

    def _stages(self) -> Iterator[tuple[int, int, int]]:
        """(number, channels, convolutions) of each stage."""
        check("depth", self.depth, DEPTH)
        check("channels", self.channels, STAGES)
        for stage, (channels, convolutions) in enumerate(
            zip(self.channels, CONVOLUTIONS[self.depth], strict=False), 1
        ):
            yield stage, int(channels * self.multiplier), convolutions


def max_pool_2x2(value: jax.Array) -> jax.Array:
    """Stride 2; what is missing of the last windows of an odd side never is the largest."""
    return nn.max_pool(value, (2, 2), strides=(2, 2), padding="SAME")
