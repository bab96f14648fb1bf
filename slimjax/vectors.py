"""Widths as vectors of real numbers: what continuous optimisers and random draws work on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from slimjax.budgets import MACS, Resource
from slimjax.nn.roles import residual_streams
from slimjax.nn.space import Subnet
from slimjax.search.encoding import Encoding
from slimjax.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class WidthVectors:
    """The box [low, 1]^G that continuous optimisers search: each group's fraction of its full size.

    Options of a choice share the range of its fraction equally, the first at the lower end.

    Args:
      nondecreasing: a stream (`Supernet.streams`) is never narrower than the one before it. Paper: Joslim's code; where
        a shortcut has no parameters, the channels that a narrower stream drops would be lost.
      share_fractions: the groups of `Supernet.one_fraction` take the fraction of the first of them; the others'
        entries then change nothing. Paper: Joslim's code reads one entry for a MobileNet's stem and first stage.
    """

    net: Supernet
    resource: Resource = MACS
    nondecreasing: bool = True
    share_fractions: bool = False

    @property
    def low(self) -> float:
        """The smallest network's fraction."""
        return self.net.space.min_width / self.net.space.max_width

    @functools.cached_property
    def encoding(self) -> Encoding | None:
        """How a kernel is to see the fractions of a space with choices; None: the space has none."""
        space = self.net.space
        if not space.choices:
            return None
        sizes, ordered = zip(*((len(choice), choice.ordered) for choice in space.choices), strict=True)
        return Encoding(len(space.groups), sizes, ordered, self.low, space.exists)

    def subnets(self, fractions: np.ndarray) -> Subnet:
        """int32 [..., G], rounded as the space does, streams then raised in order where they exist.

        Fractions that rounding has put a bit outside of the box are taken back.
        """
        space = self.net.space
        fractions = np.array(fractions, np.float64)
        if self._tied:
            fractions[..., self._tied] = fractions[..., self._tied[:1]]
        subnets = space.layerwise(np.clip(fractions * space.max_width, space.min_width, space.max_width))
        streams = self._streams if self.nondecreasing else []
        for i, before in zip(streams[1:], streams, strict=False):
            raised = np.maximum(subnets[..., i], subnets[..., before])
            subnets[..., i] = np.minimum(raised, self.net.space.largest[i])
        return space.canonical(subnets)

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
        """Positions of the streams in a subnet."""
        names = self.net.streams
        return self._positions(
            [g.name for g in residual_streams(self.net.records)] if names is None else names
        )

    @functools.cached_property
    def _tied(self) -> list[int]:
        """Positions of the groups that share a fraction."""
        return self._positions(self.net.one_fraction) if self.share_fractions else []

    def _positions(self, names: Sequence[str]) -> list[int]:
        """Of the groups that this network has: options of its class may have left some out."""
        index = self.net.space.index
        return [index[name] for name in names if name in index]
