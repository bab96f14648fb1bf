"""Rungs: the few sizes at which subnets that change every step are compiled.

A subnet runs *bucketed* in the cheapest rung that covers it; what the rung computes beyond the subnet is
waste. Given draws of the sampler and the cost model, `choose` finds the rungs with the least expected cost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slimjax.widths import Subnet

Cost = Callable[[Subnet], np.ndarray]
"""Subnets int32 [..., G] -> cost [...]; MACs, say."""

MOST_POINTS = 256
"""The dynamic programme's size; more distinct subnets than this are first merged in order of cost."""


def choose(draws: Subnet, cost: Cost, count: int) -> Subnet:
    """At most `count` rungs, int32 [K, G] by rising cost, that cover every draw.

    Subnets in order of cost are cut into runs; a run's rung is its elementwise maximum. Dynamic programming
    finds the cuts with the least sum of (draws in the run) x (cost of its rung): optimal where subnets are
    ordered in every group at once (uniform widths), and a good covering where they are not.

    Args:
      draws: int32 [N, G], with repetitions: their frequency is the distribution.
    """
    points, weights = _merge(*_sorted(draws, cost))
    return _cut(points, weights, cost, min(count, len(points)))


def cover(rungs: Subnet, subnet: Subnet) -> int | None:
    """Index of the first (cheapest) rung that covers the subnet; None if none does."""
    covering = np.flatnonzero((rungs >= subnet).all(-1))
    return int(covering[0]) if covering.size else None


def _sorted(draws: Subnet, cost: Cost) -> tuple[Subnet, np.ndarray]:
    distinct, counts = np.unique(draws, axis=0, return_counts=True)
    order = np.argsort(cost(distinct), kind="stable")
    return distinct[order], counts[order]


def _merge(points: Subnet, weights: np.ndarray) -> tuple[Subnet, np.ndarray]:
    """Neighbours joined until few enough are left; a joined point is the elementwise maximum."""
    groups = np.array_split(np.arange(len(points)), min(len(points), MOST_POINTS))
    return (
        np.stack([points[group].max(0) for group in groups]),
        np.array([weights[group].sum() for group in groups]),
    )


def _cut(points: Subnet, weights: np.ndarray, cost: Cost, count: int) -> Subnet:
    size = len(points)
    # covers[i][j - i] is the rung of points i to j.
    covers = [np.maximum.accumulate(points[start:], axis=0) for start in range(size)]
    total = np.concatenate([[0], np.cumsum(weights)])
    price = np.full((size, size), np.inf)
    for start, rungs in enumerate(covers):
        price[start, start:] = cost(rungs) * (total[start + 1 :] - total[start])
    best = price[0].copy()  # best[j]: least price of points 0..j with the runs so far
    cuts = []
    for _ in range(count - 1):
        joined = best[:-1, None] + price[1:]  # a last run that starts at k + 1
        start = joined.argmin(0)
        improved = joined[start, np.arange(size)]
        cuts.append(np.where(improved < best, start + 1, -1))
        best = np.minimum(best, improved)
    return _backtrack(covers, cuts, size)


def _backtrack(covers: list[Subnet], cuts: list[np.ndarray], size: int) -> Subnet:
    rungs, end = [], size - 1
    for cut in reversed(cuts):
        if cut[end] > 0:
            rungs.append(covers[cut[end]][end - cut[end]])
            end = cut[end] - 1
    rungs.append(covers[0][end])
    return np.stack(rungs[::-1]).astype(np.int32)
