"""`slimjax bench elasticity`: how near to a target elasticity-scaling brings random architectures, and how fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from slimjax import supernet
from slimjax.checks import check, integer
from slimjax.cost import latency
from slimjax.cost.latency import LatencyTable
from slimjax.errors import BadValue
from slimjax.nn.space import Space, Subnet
from slimjax.profiling import profile
from slimjax.profiling.profile import ProfileRequest
from slimjax.search.base import Cost
from slimjax.search.elastic import elastic

WIDTH = 0.75
"""Of all groups at first: TF-NAS begins with 3 or 6 channels for each of the input's, and has at most 4 or 8."""

QUANTILES = (0.2, 0.4, 0.6, 0.8)
"""Where the targets lie among the latencies of the architectures at first."""


def run(
    subnets: int,
    seed: int = 0,
    table: str | None = None,
    targets: Sequence[float] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Scales random architectures, each to each target between what it costs at its fewest and its most channels.

    Paper: Hu et al., TF-NAS, ECCV 2020, elasticity-scaling.

    Args:
      subnets: architectures; operators and depths are drawn evenly.
      table: the file of a latency table; None: a roofline of TF-NAS's network, whose readings are cached.
      targets: milliseconds; None: quantiles of what the architectures cost at first.
      fields: of `profile.ProfileRequest`, if the table is to be made.

    Returns: errors are per cent of the target, means are over the `feasible` architectures: `mean_error_percent` and
    `max_error_percent` of what is found, `first_error_percent` before scaling, `global_error_percent` after one pass
    over all stages, `above_target` (how many are), `ms_each` and `ms_slowest` of one scaling.

    Raises:
      BadValue: no architecture can cost any of the targets.
    """
    check("subnets", subnets, integer(1))
    check("seed", seed, integer(0))
    known = _roofline(**fields) if table is None else latency.load(table)
    net = supernet.named(**known.about["network"])
    cost = net.latency(known)
    rows = architectures(net.space, subnets, seed)
    limits = np.quantile(cost(rows), QUANTILES).tolist() if targets is None else targets
    found = {limit: scaled(net.space, cost, rows, limit) for limit in limits}
    if not sum(map(len, found.values())):
        raise BadValue(
            "targets", f"none of {subnets} architectures can cost {', '.join(map(str, limits))} ms."
        )
    by_target = [{"target_ms": limit, **summary(part)} for limit, part in found.items() if len(part)]
    about = {key: known.about[key] for key in ("network", "target", "device", "method", "batch")}
    every = summary(np.concatenate([*found.values()]))
    return {**about, "architectures": subnets, "seed": seed, **every, "targets": by_target}


def _roofline(**fields: Any) -> LatencyTable:
    request = ProfileRequest({"name": "tfnas"}, "roofline:v100", **fields)
    return profile.run(request, points=4)[0]


def architectures(space: Space, count: int, seed: int) -> Subnet:
    """int32 [count, G]: random options, the groups all as wide as each other."""
    rows = space.random(count, seed)
    rows[:, : len(space.groups)] = [group.at(WIDTH, space.rounding) for group in space.groups]
    return space.canonical(rows)


def scaled(space: Space, cost: Cost, rows: Subnet, target: float) -> np.ndarray:
    """float [feasible, 4]: per cent above the target at first, after one pass, and at last; milliseconds."""
    exists, groups = space.exists(rows), np.arange(len(space)) < len(space.groups)
    fewest, most = (
        np.where(exists & groups, end, rows).astype(np.int32) for end in (space.lowest, space.largest)
    )
    within = rows[(cost(fewest) <= target) & (target <= cost(most))]
    return np.array([_one(space, cost, row, target) for row in within]).reshape(-1, 4)


def _one(space: Space, cost: Cost, row: Subnet, target: float) -> list[float]:
    began = time.perf_counter()
    found = elastic(space, cost, row, target, space.stages)
    milliseconds = 1000 * (time.perf_counter() - began)
    once = elastic(space, cost, row, target, dict.fromkeys(space.stages, 1))
    return [*(100 * (float(cost(subnet)) / target - 1) for subnet in (row, once, found)), milliseconds]


def summary(part: np.ndarray) -> dict[str, Any]:
    """Of architectures as `_scaled` returns them."""
    first, once, last = np.abs(part[:, :3]).mean(0).tolist()
    return {
        "feasible": len(part),
        "first_error_percent": first,
        "global_error_percent": once,
        "mean_error_percent": last,
        "max_error_percent": float(np.abs(part[:, 2]).max()),
        "above_target": int((part[:, 2] > 0).sum()),
        "ms_each": float(part[:, 3].mean()),
        "ms_slowest": float(part[:, 3].max()),
    }
