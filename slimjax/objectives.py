"""What a search holds subnets to: MACs, parameters, peak memory, or milliseconds by a latency table."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from slimjax.cost import latency
from slimjax.errors import UserError
from slimjax.nn.trace import residual_streams
from slimjax.nn.widths import Subnet
from slimjax.search.base import target_name
from slimjax.supernet import Supernet

OBJECTIVES = MappingProxyType(
    {
        "macs": "multiply-accumulates per image",
        "params": "parameters",
        "peak_bytes": "bytes of inference at its fullest moment, one image",
        "latency_ms": "milliseconds, by a latency table",
    }
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """A cost of subnets, by name.

    Args:
      name: of `OBJECTIVES`.
      table: the file of a latency table; for "latency_ms" only.

    Raises:
      UserError: an unknown name, or a table missing or not asked for.
    """

    name: str = "macs"
    table: str | None = None

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise UserError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {self.name!r}.")
        if (self.name == "latency_ms") != (self.table is not None):
            raise UserError(
                "objective: latency_ms needs a table, and nothing else does. "
                "Write latency_ms with a table that slimjax profile made."
            )

    def cost(self, net: Supernet) -> Callable[[Subnet], np.ndarray]:
        """int32 [..., G] -> float64 [...], in the objective's unit."""
        if self.table:
            count: Callable[..., Any] = net.latency(latency.load(self.table))
        else:
            by_name: Mapping[str, Callable[..., Any]] = {
                "macs": net.macs,
                "params": net.params,
                "peak_bytes": net.peak_memory,
            }
            count = by_name[self.name]
        return lambda subnets: np.asarray(count(np.asarray(subnets, np.int32)), np.float64)


@dataclasses.dataclass(frozen=True)
class Budget:
    """An upper bound on an objective: a fraction of the largest network's cost if it is at most 1, else absolute.

    Latencies are always absolute: networks of less than a millisecond exist.
    """

    objective: Objective
    most: float

    def absolute(self, net: Supernet) -> float:
        """The bound in the objective's unit."""
        if self.most > 1 or self.objective.table:
            return self.most
        return self.most * float(self.objective.cost(net)(net.space.largest))

    def __str__(self) -> str:
        table = f"@{self.objective.table}" if self.objective.table else ""
        return f"{self.objective.name}<={target_name(self.most)}{table}"


def parse_budget(text: str) -> Budget:
    """`macs<=0.5`, `params<=200000`, `latency_ms<=3.2@table.json`.

    Raises:
      UserError: saying what a budget looks like.
    """
    match = re.fullmatch(r"\s*(\w+)\s*<=\s*([\d.eE+-]+)\s*(?:@(.+))?", text)
    try:
        most = float(match[2]) if match else math.nan
    except ValueError:
        most = math.nan
    if match is None or not 0 < most < math.inf:
        raise UserError(
            f"--budget: expected COST<=NUMBER, such as 'macs<=0.5' (a fraction of the largest network's), "
            f"'params<=200000' or 'latency_ms<=3.2@table.json', got {text!r}."
        )
    return Budget(Objective(match[1], match[3]), most)


@dataclasses.dataclass(frozen=True)
class WidthVectors:
    """The box [low, 1]^G that continuous optimisers search: each group's fraction of its full size.

    Args:
      nondecreasing: a residual stream is never narrower than the one before it. Paper: Joslim's code; where a
        shortcut has no parameters, the channels that a narrower stream drops would be lost.
    """

    net: Supernet
    objective: Objective = Objective()
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

    def cost(self, subnets: Subnet) -> np.ndarray:
        """A fraction of the largest network's cost, [...]."""
        return self._cost(subnets) / self._most

    @functools.cached_property
    def _cost(self) -> Callable[[Subnet], np.ndarray]:
        return self.objective.cost(self.net)

    @functools.cached_property
    def _most(self) -> float:
        return float(self._cost(self.net.space.largest))

    @functools.cached_property
    def _streams(self) -> list[int]:
        return [self.net.space.index[group.name] for group in residual_streams(self.net.records)]
