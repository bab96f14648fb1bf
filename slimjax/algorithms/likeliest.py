"""The likeliest network by structure parameters: its operators and depths, and widths that cost what is wanted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from slimjax import sharding
from slimjax.algorithms.phases import Changes
from slimjax.budgets import Budget
from slimjax.errors import BadValue
from slimjax.nn import filters, reorder
from slimjax.nn.arrays import CHOICES
from slimjax.nn.space import Subnet
from slimjax.search.base import Cost
from slimjax.search.elastic import elastic
from slimjax.step.engine import Engine
from slimjax.step.state import TrainState


@dataclasses.dataclass(frozen=True)
class Likeliest:
    """Pure functions of the state, on the host.

    Args:
      limit: what the network may cost.
    """

    engine: Engine
    limit: Budget

    @functools.cached_property
    def changes(self) -> Changes:
        return Changes(self.engine)

    @functools.cached_property
    def _cost(self) -> Cost:
        return self.limit.resource.cost(self.engine.net)

    @functools.cached_property
    def _most(self) -> float:
        return self.limit.absolute(self.engine.net)

    def of(self, state: TrainState, widths: Subnet, *, scale: bool = True) -> Subnet:
        """int32 [G]: of each choice the option of the largest parameter, with widths that are scaled to the limit.

        Where even the fewest channels cost more, it has those.

        Paper: Hu et al., TF-NAS, ECCV 2020, section 3.4 (elasticity-scaling).

        Args:
          widths: int32 [G], channels of all groups to begin with.
        """
        space, logits = self.engine.net.space, sharding.fetch(state.structure[CHOICES])
        options = [int(np.argmax(logits[choice.name])) for choice in space.choices]
        subnet = space.canonical(np.array([*widths[: len(space.groups)], *options], np.int32))
        if not scale:
            return subnet
        try:
            return elastic(space, self._cost, subnet, self._most, space.stages)
        except BadValue:  # dearer than the limit at its narrowest
            return np.where(self._groups, space.lowest, subnet).astype(np.int32)

    def merged(self, subnet: Subnet, widths: Subnet) -> Subnet:
        """The channels of all groups: those of the subnet where it has them."""
        space = self.engine.net.space
        return np.where(space.exists(subnet) & self._groups, subnet, widths).astype(np.int32)

    def sorted(self, state: TrainState, subnet: Subnet) -> TrainState:
        """With the channels of the subnet's groups in the order of the L1 norms of their depthwise kernels."""
        net = self.engine.net
        norms = filters.IMPORTANCES["depthwise"](net.records, sharding.fetch({"params": state.params}))
        there = dict(zip(net.space.index, net.space.exists(subnet).tolist(), strict=True))
        importance = {
            group.name: np.asarray(norms[group.name]) if there[group.name] else np.zeros(group.channels)
            for group in net.space.groups
            if group.name in norms
        }
        return self.changes.reordered(state, reorder.order(net.records, net.space, importance))

    def costs(self, subnet: Subnet) -> dict[str, float]:
        """What the subnet costs, by the limit's resource."""
        return {self.limit.resource.name: float(self._cost(subnet))}

    def measured(self, state: TrainState, step: int) -> dict[str, float]:
        """How sure the choices are, and what the likeliest network costs as it is, over the limit."""
        del step
        logits = sharding.fetch(state.structure[CHOICES])
        shares = {name: np.exp(row - np.logaddexp.reduce(row)) for name, row in logits.items()}
        found = self.of(state, state.algorithm["subnet"], scale=False)
        return {
            "search/entropy": float(np.mean([-(p * np.log(p + 1e-30)).sum() for p in shares.values()])),
            "search/largest_share": float(np.mean([p.max() for p in shares.values()])),
            "search/cost_over_limit": float(self._cost(found)) / self._most,
            "search/temperature": float(state.algorithm["temperature"]),
        }

    def told(self, before: Mapping[str, Any], after: Mapping[str, Any], step: int) -> list[str]:
        """A line for each epoch that begins with other widths."""
        changed = int((before["subnet"] != after["subnet"]).sum())
        if int(before["phase"]) == int(after["phase"]) or not changed:
            return []
        return [f"step {step:,}: {changed} widths scaled, temperature {float(after['temperature']):.3g}"]

    @functools.cached_property
    def _groups(self) -> np.ndarray:
        """bool [G]: entries that are channels."""
        space = self.engine.net.space
        return np.arange(len(space)) < len(space.groups)
