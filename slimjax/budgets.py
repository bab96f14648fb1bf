"""What a search holds subnets to: MACs, parameters, peak memory, or milliseconds by a latency table."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from slimjax.checks import check, one_of
from slimjax.cost import latency, tiles
from slimjax.cost.gates import Weights
from slimjax.errors import BadValue
from slimjax.nn.space import Subnet
from slimjax.search.base import target_name
from slimjax.supernet import Supernet

RESOURCES = MappingProxyType(
    {
        "macs": "multiply-accumulates per image",
        "tile_macs": "multiply-accumulates per image, channels in whole tiles of 128",
        "params": "parameters",
        "peak_bytes": "bytes of inference at its fullest moment, one image",
        "latency_ms": "milliseconds, by a latency table",
    }
)


@dataclasses.dataclass(frozen=True)
class Resource:
    """What running a subnet costs, by name.

    Args:
      name: of `RESOURCES`.
      table: the file of a latency table; for "latency_ms" only.

    Raises:
      BadValue: an unknown name, or a table missing or not asked for.
    """

    name: str = "macs"
    table: str | None = None

    def __post_init__(self) -> None:
        check("resource", self.name, one_of(*RESOURCES))
        if (self.name == "latency_ms") != (self.table is not None):
            raise BadValue(
                "resource",
                "latency_ms needs a table, and nothing else does. "
                "Write latency_ms with a table that slimjax profile made.",
            )

    def cost(self, net: Supernet) -> Callable[[Subnet], np.ndarray]:
        """int32 [..., G] -> float64 [...], in the resource's unit."""
        count = self._count(net)
        return lambda subnets: np.asarray(count(np.asarray(subnets, np.int32)), np.float64)

    def soft(self, net: Supernet) -> Callable[[Any, Weights], Any]:
        """(int32 [..., G], weights of choices) -> the expected cost [...], differentiable, for JAX arrays.

        Raises:
          BadValue: the peak memory, which is no sum.
        """
        count = self._count(net)
        if not hasattr(count, "soft"):
            raise BadValue(
                "resource",
                f"expected a smooth cost that is a sum over layers, not {self.name}: {RESOURCES[self.name]}.",
            )
        return count.soft

    def _count(self, net: Supernet) -> Any:
        """The network's own function of subnets."""
        if self.table:
            return net.latency(latency.load(self.table))
        by_name: Mapping[str, Callable[[], Any]] = {
            "macs": lambda: net.macs,
            "tile_macs": lambda: tiles.padded(net.macs, net.space),
            "params": lambda: net.params,
            "peak_bytes": lambda: net.peak_memory,
        }
        return by_name[self.name]()


MACS = Resource("macs")


@dataclasses.dataclass(frozen=True)
class Budget:
    """An upper bound on a resource: a fraction of the largest network's cost if it is at most 1, else absolute.

    Latencies are always absolute: networks of less than a millisecond exist.
    """

    resource: Resource
    most: float

    def absolute(self, net: Supernet) -> float:
        """The bound in the resource's unit."""
        if self.most > 1 or self.resource.table:
            return self.most
        return self.most * float(self.resource.cost(net)(net.space.largest))

    def share(self, net: Supernet) -> Callable[[Subnet], np.ndarray]:
        """int32 [..., G] -> float64 [...]: cost over the bound."""
        cost, most = self.resource.cost(net), self.absolute(net)
        return lambda subnets: cost(subnets) / most

    def uniform(self, net: Supernet) -> Subnet:
        """The subnet of one width, int32 [G], whose cost is nearest to the bound."""
        space = net.space
        subnets = np.array([space.uniform(w) for w in np.linspace(space.min_width, space.max_width, 201)])
        return subnets[int(abs(self.share(net)(subnets) - 1).argmin())]

    def __str__(self) -> str:
        table = f"@{self.resource.table}" if self.resource.table else ""
        return f"{self.resource.name}<={target_name(self.most)}{table}"


def parse_resource(text: str) -> Resource:
    """`macs`, or `latency_ms@table.json`.

    Raises:
      BadValue: an unknown name, or a table missing or not asked for.
    """
    name, _, table = text.partition("@")
    return Resource(name, table or None)


def parse_budget(text: str) -> Budget:
    """`macs<=0.5`, `params<=200000`, `latency_ms<=3.2@table.json`.

    Raises:
      BadValue: saying what a budget looks like.
    """
    match = re.fullmatch(r"\s*(\w+)\s*<=\s*([\d.eE+-]+)\s*(?:@(.+))?", text)
    try:
        most = float(match[2]) if match else math.nan
    except ValueError:
        most = math.nan
    if match is None or not 0 < most < math.inf:
        raise BadValue(
            "budget",
            f"expected COST<=NUMBER, such as 'macs<=0.5' (a fraction of the largest network's), "
            f"'params<=200000' or 'latency_ms<=3.2@table.json', got {text!r}.",
        )
    try:
        return Budget(Resource(match[1], match[3]), most)
    except BadValue as error:
        raise BadValue("budget", error.problem) from error
