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
      convention: what `macs` counts.
    """

    model: nn.Module
    image_shape: tuple[int, int, int]
    rounding: Rounding
    min_width: float
    convention: costs.Convention = costs.CONVENTIONS["slimmable"]

    @functools.cached_property
    def records(self) -> records.Records:
        return records.trace(self.model, self.image_shape)

    @functools.cached_property
    def space(self) -> WidthSpace:
        return records.width_space(self.records, self.rounding, self.min_width)

    @functools.cached_property
    def variable_shapes(self) -> Mapping[str, Any]:
        """`jax.ShapeDtypeStruct`s of the full-size variables: `params`, `affine`, `batch_stats`."""
        image = jax.ShapeDtypeStruct((2, *self.image_shape), jnp.float32)
        return jax.eval_shape(lambda key, x: self.model.init(key, x, train=True), jax.random.key(0), image)

    @functools.cached_property
    def macs(self) -> costs.Quadratic:
        """Multiply-accumulates per image, a function of subnets [..., G]."""
        return costs.macs(self.records, self.space, self.convention)

    @functools.cached_property
    def params(self) -> costs.Quadratic:
        """Active parameters, a function of subnets [..., G]."""
        return costs.params(self.records, self.space)

    @functools.cached_property
    def peak_memory(self) -> costs.PeakMemory:
        """Bytes of inference at its fullest moment, a function of subnets [..., G] and the batch size."""
        return costs.peak_memory(self.records, self.space)

    def cut(self, variables: Mapping[str, Any], subnet: Subnet) -> dict[str, Any]:
        """The dense network's variables (see `slicing.cut`)."""
        return slicing.cut(self.records, self.space, variables, subnet)
