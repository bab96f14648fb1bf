"""Rungs: the few sizes at which subnets that change every step are compiled.

A subnet runs *bucketed* in the cheapest rung that covers it; what the rung computes beyond the subnet is
waste. Given draws of the sampler and the cost model, `choose` finds rungs with a small expected cost: the smallest
there is, where subnets are ordered in every group at once (uniform widths).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from slimjax.nn.space import Subnet

Cost = Callable[[Subnet], np.ndarray]
"""Subnets int32 [..., G] -> cost [...]; MACs, say."""

MOST_POINTS = 256
"""The dynamic programme's size; more distinct subnets than this are first merged in order of cost."""
MOST_EXCHANGES = 300
"""Draws that change their rung, at most."""


def choose(draws: Subnet, cost: Cost, count: int, static: Sequence[int] = ()) -> Subnet:
    """At most `count` rungs, int32 [K, G] by rising cost, that cover every draw.

    Draws that differ in `static` columns cannot share a rung: each part has its share of the rungs, and one at least.

    Args:
      draws: int32 [N, G], with repetitions: their frequency is the distribution.
    """
    parts = _parts(draws, static)
    rungs = np.concatenate([_choose(part, cost, max(1, count // len(parts))) for part in parts])
    return rungs[np.argsort(cost(rungs), kind="stable")] if len(parts) > 1 else rungs


def _parts(draws: Subnet, static: Sequence[int]) -> list[Subnet]:
    """The draws by what they have in static columns."""
    _, part = np.unique(draws[:, list(static)], axis=0, return_inverse=True)
    return [draws[part == i] for i in range(part.max() + 1)]


def _choose(draws: Subnet, cost: Cost, count: int) -> Subnet:
    """`choose` of draws that can share rungs.

    Subnets in order of cost are divided into runs; a run's rung is its elementwise maximum. Dynamic programming
    finds the division with the least sum of (draws in the run) x (cost of its rung): optimal where subnets are
    ordered in every group at once (uniform widths). Where they are not, neighbours in cost may have little in
    common: subnets are also joined by how much that costs, one draw after another changes its rung as long as
    that pays, and the better result is taken.
    """
    draws, weights = _sorted(draws, cost)
    points, merged = _merge(draws, weights)
    best = _partition(points, merged, cost, min(count, len(points)))
    if count >= len(draws) or (np.diff(draws, axis=0) >= 0).all():
        return best
    starts = [best, _join(draws, weights, cost, count)]
    found = [_exchange(start, draws, weights, cost) for start in starts]
    return min(found, key=lambda rungs: expected_cost(rungs, draws, weights, cost))


def expected_cost(rungs: Subnet, draws: Subnet, weights: np.ndarray, cost: Cost) -> float:
    """Mean cost of the draws [N, G], each in the cheapest rung that covers it; infinite if there is none."""
    return float(np.average(_prices(rungs, draws, cost).min(1), weights=weights))


def covers(rungs: Subnet, subnets: Subnet, static: Sequence[int] = ()) -> np.ndarray:
    """bool [...]: rungs [..., G] are at least as large as subnets [..., G], and equal in static columns."""
    columns = list(static)
    equal = (rungs[..., columns] == subnets[..., columns]).all(-1)
    return np.asarray((rungs >= subnets).all(-1) & equal)


def cover(rungs: Subnet, subnet: Subnet, static: Sequence[int] = ()) -> int | None:
    """Index of the first (cheapest) rung that covers the subnet; None if none does."""
    covering = np.flatnonzero(covers(rungs, subnet, static))
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


def _partition(points: Subnet, weights: np.ndarray, cost: Cost, count: int) -> Subnet:
    size = len(points)
    # covers[i][j - i] is the rung of points i to j.
    covers = [np.maximum.accumulate(points[start:], axis=0) for start in range(size)]
    total = np.concatenate([[0], np.cumsum(weights)])
    price = np.full((size, size), np.inf)
    for start, rungs in enumerate(covers):
        price[start, start:] = cost(rungs) * (total[start + 1 :] - total[start])
    best = price[0].copy()  # best[j]: least price of points 0..j with the runs so far
    starts = []
    for _ in range(count - 1):
        joined = best[:-1, None] + price[1:]  # a last run that starts at k + 1
        start = joined.argmin(0)
        improved = joined[start, np.arange(size)]
        starts.append(np.where(improved < best, start + 1, -1))
        best = np.minimum(best, improved)
    return _backtrack(covers, starts, size)


def _backtrack(covers: list[Subnet], starts: list[np.ndarray], size: int) -> Subnet:
    rungs, end = [], size - 1
    for start in reversed(starts):
        if start[end] > 0:
            rungs.append(covers[start[end]][end - start[end]])
            end = start[end] - 1
    rungs.append(covers[0][end])
    return np.stack(rungs[::-1]).astype(np.int32)


def _prices(rungs: Subnet, points: Subnet, cost: Cost) -> np.ndarray:
    """[N, K]: what each point costs in each rung; infinite where the rung does not cover it."""
    covers = (rungs >= points[:, None]).all(-1)
    return np.where(covers, np.asarray(cost(rungs), np.float64), np.inf)


def _join(points: Subnet, weights: np.ndarray, cost: Cost, count: int) -> Subnet:
    """Rungs by joining, again and again, the two subnets whose common rung adds the least cost."""
    some = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).astype(int))
    rungs, weight = points[some], weights[some].astype(np.float64)
    added = np.stack([_added(i, rungs, weight, cost) for i in range(len(rungs))])
    np.fill_diagonal(added, np.inf)
    for _ in range(len(rungs) - count):
        i, gone = divmod(int(added.argmin()), len(rungs))
        rungs[i], weight[i] = np.maximum(rungs[i], rungs[gone]), weight[i] + weight[gone]
        added[gone] = added[:, gone] = np.inf
        weight[gone] = 0
        added[i] = added[:, i] = np.where(weight > 0, _added(i, rungs, weight, cost), np.inf)
        added[i, i] = np.inf
    rungs = rungs[weight > 0]
    # Points that were left out join the rung that grows least.
    growth = cost(np.maximum(rungs, points[:, None])) - cost(rungs)
    return _covers(points, growth.argmin(1), len(rungs))


def _added(i: int, rungs: Subnet, weight: np.ndarray, cost: Cost) -> np.ndarray:
    """[K]: how much a common rung of i and each other would add to the sum of weight x cost."""
    together = (weight[i] + weight) * cost(np.maximum(rungs[i], rungs))
    return together - weight[i] * cost(rungs[i]) - weight * cost(rungs)


def _exchange(rungs: Subnet, points: Subnet, weights: np.ndarray, cost: Cost) -> Subnet:
    """Moves single points to other rungs, the most profitable first, until none pays; by rising cost."""
    for _ in range(MOST_EXCHANGES):
        member = _prices(rungs, points, cost).argmin(1)
        rungs = _covers(points, member, len(rungs))
        total, old = np.bincount(member, weights, len(rungs)), np.asarray(cost(rungs), np.float64)
        smaller = _without_each(rungs, points, member)
        edge = np.flatnonzero((smaller < rungs[member]).any(1))
        if not len(edge):
            break
        home, weight = member[edge], weights[edge]
        gain = total[home] * old[home] - (total[home] - weight) * cost(smaller[edge])
        loss = (total + weight[:, None]) * cost(np.maximum(rungs, points[edge][:, None])) - total * old
        loss[np.arange(len(edge)), home] = np.inf
        best = int((gain - loss.min(1)).argmax())
        if gain[best] - loss[best].min() <= 1e-9 * (total * old).sum():
            break
        member[edge[best]] = loss[best].argmin()
        rungs = _covers(points, member, len(rungs))
    rungs = rungs[np.bincount(_prices(rungs, points, cost).argmin(1), minlength=len(rungs)) > 0]
    return rungs[np.argsort(cost(rungs), kind="stable")]


def _covers(points: Subnet, member: np.ndarray, count: int) -> Subnet:
    """The elementwise maximum of each rung's points; zeros where it has none."""
    rungs = np.zeros((count, points.shape[1]), np.int32)
    np.maximum.at(rungs, member, points)
    return rungs


def _without_each(rungs: Subnet, points: Subnet, member: np.ndarray) -> Subnet:
    """[N, G]: each point's rung, had it not that point."""
    second = np.zeros_like(rungs)
    for k in range(len(rungs)):
        own = np.sort(points[member == k], axis=0)
        if len(own) > 1:
            second[k] = own[-2]
    return np.where(points == rungs[member], second[member], rungs[member])
