"""Widths as vectors of real numbers: what continuous optimisers and random draws work on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from slimjax.budgets import MACS, Resource
from slimjax.nn.space import Subnet
from slimjax.nn.trace import residual_streams
from slimjax.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class WidthVectors:
    """The box [low, 1]^G that continuous optimisers search: each group's fraction of its full size.

    Args:
      nondecreasing: a residual stream is never narrower than the one before it. Paper: Joslim's code; where a
        shortcut has no parameters, the channels that a narrower stream drops would be lost.
    """

    net: Supernet
    resource: Resource = MACS
    nondecreasing: bool = True

    @property
    def low(self) -> float:
        """The smallest network's fraction."""
        return self.net.space.min_width / self.net.space.max_width

    def subnets(self, fractions: np.ndarray) -> Subnet:
        """int32 [..., G], rounded as the space does, residual streams then raised in order.

        Fractions that rounding has put a bit outside of the box are taken back.
        """
        space = self.net.space
        widths = np.clip(
            np.asarray(fractions, np.float64) * space.max_width, space.min_width, space.max_width
        )
        subnets = space.layerwise(widths)
        streams = self._streams if self.nondecreasing else []
        for i, before in zip(streams[1:], streams, strict=False):
            raised = np.maximum(subnets[..., i], subnets[..., before])
            subnets[..., i] = np.minimum(raised, self.net.space.largest[i])
        return subnets

    def sample(self, seed: int, count: int, spread: float) -> Subnet:
        """Random subnets, int32 [count, G]: each group's width is within `spread` of a common one."""
        rng = np.random.default_rng(seed)
        uniform = rng.uniform(self.low, 1, (count, 1))
        around = rng.uniform(-spread, spread, (count, len(self.net.space)))
        return self.subnets(np.clip(uniform + around, self.low, 1))

    def cost(self, subnets: Subnet) -> np.ndarray:
        """A fraction of the largest network's cost, [...]."""
        return self._cost(subnets) / self._most

    @functools.cached_property
    def _cost(self) -> Callable[[Subnet], np.ndarray]:
        return self.resource.cost(self.net)

    @functools.cached_property
    def _most(self) -> float:
        return float(self._cost(self.net.space.largest))

    @functools.cached_property
    def _streams(self) -> list[int]:
        return [self.net.space.index[group.name] for group in residual_streams(self.net.records)]
