"""A network together with its space of subnets: what algorithms, costs and the command line pass around."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax import costs, records, slicing
from slimjax.widths import Rounding, Subnet, WidthSpace


@dataclasses.dataclass(frozen=True)
class Supernet:
    """A model built from `slimjax.layers`, its image shape [H, W, C], and how widths become channels.

    Args:
      counts_pooling: whether `macs` includes average pooling (see `costs.macs`).
      max_width: the width that means full size (see `widths.WidthSpace`).
    """

    model: nn.Module
    image_shape: tuple[int, int, int]
    rounding: Rounding
    min_width: float
    counts_pooling: bool = True
    max_width: float = 1.0

    @functools.cached_property
    def records(self) -> records.Records:
        return records.trace(self.model, self.image_shape)

    @functools.cached_property
    def space(self) -> WidthSpace:
        return records.width_space(self.records, self.rounding, self.min_width, self.max_width)

    @functools.cached_property
    def variable_shapes(self) -> Mapping[str, Any]:
        """`jax.ShapeDtypeStruct`s of the full-size variables: `params`, `affine`, `batch_stats`."""
        image = jax.ShapeDtypeStruct((2, *self.image_shape), jnp.float32)
        return jax.eval_shape(lambda key, x: self.model.init(key, x, train=True), jax.random.key(0), image)

    def macs(self, subnets: Subnet) -> costs.Counts:
        """Multiply-accumulates per image of subnets [..., G]."""
        return costs.macs(self.records, self.space, subnets, pooling=self.counts_pooling)

    def params(self, subnets: Subnet) -> costs.Counts:
        """Active parameters of subnets [..., G]."""
        return costs.params(self.records, self.space, subnets)

    def cut(self, variables: Mapping[str, Any], subnet: Subnet) -> dict[str, Any]:
        """The dense network's variables (see `slicing.cut`)."""
        return slicing.cut(self.records, self.space, variables, subnet)
