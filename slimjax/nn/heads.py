"""Small networks made of layers: the classifier, and channel attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.layers import Dense, GlobalPool, wide
from slimjax.nn.widths import Group


class PoolingHead(nn.Module):
    """Global mean, then a classifier with bias: feature map [B, H, W, C] to logits [B, K], at least float32.

    Args:
      hidden: width of a dense layer with bias and `activation` before the classifier, never narrowed; 0: none.
    """

    num_classes: int
    dtype: Any = jnp.float32
    hidden: int = 0
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu

    @nn.compact
    def __call__(self, x: FeatureMap) -> jax.Array:
        x = GlobalPool(name="pool")(x)
        if self.hidden:
            head = Group("head", self.hidden, fixed=True)
            x = Dense(head, dtype=self.dtype, name="hidden")(x).map(self.activation)
        return classify(x, self.num_classes, self.dtype)


def classify(x: FeatureMap, num_classes: int, dtype: Any) -> jax.Array:
    """The dropout of `x.widths`, then a layer "classifier" with bias: [B, C] to logits [B, K], at least float32."""
    if x.widths.dropout is not None:
        x = x.map(x.widths.dropout)
    classes = Group("logits", num_classes, fixed=True)
    logits = Dense(classes, dtype=dtype, name="classifier")(x)
    return logits.value.astype(wide(logits.value.dtype))


class SqueezeExcite(nn.Module):
    """Channel attention: pool, reduce to `hidden`, activation, expand, gate, multiply. Hu et al. 2018, section 3.

    `hidden` is a group of its own, and `gate` maps 0 to anything: inactive channels stay zero.
    """

    hidden: Group
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid
    dtype: Any = jnp.float32
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        squeezed = GlobalPool(name="pool")(x)
        hidden = Dense(self.hidden, dtype=self.dtype, name="reduce")(squeezed).map(self.activation)
        gate = Dense(x.group, dtype=self.dtype, name="expand")(hidden).map(self.gate)
        return x * gate.map(lambda value: value[:, None, None, :].astype(x.value.dtype))
