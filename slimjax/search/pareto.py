"""Pareto fronts of two objectives, both minimised. Points are float [N, 2]: (loss, cost)."""

from __future__ import annotations

import bisect

import numpy as np


def front(points: np.ndarray) -> np.ndarray:
    """bool [N]: the points that no other dominates. Of equal points, all are kept.

    One point dominates another that is nowhere smaller and somewhere larger.
    """
    return peel(points) == 0


def peel(points: np.ndarray) -> np.ndarray:
    """int [N]: 0 on the front, 1 on the front of what is left without it, and so on. Equal points share a number.

    Raises:
      ValueError: a shape other than [N, 2], or entries that are not finite.
    """
    unique, inverse = np.unique(_checked(points)[:, ::-1], axis=0, return_inverse=True)  # by cost, then loss
    lowest: list[float] = []  # the lowest loss on each front so far: ascending
    ranks = np.zeros(len(unique), np.int64)
    for i, loss in enumerate(unique[:, 1]):
        ranks[i] = bisect.bisect_right(lowest, loss)
        lowest[ranks[i] : ranks[i] + 1] = [loss]
    return ranks[inverse.ravel()]


def extended(points: np.ndarray, until: float) -> np.ndarray:
    """bool [N]: the front, and of the fronts behind it what is dearer than all that was taken before.

    It ends with the front that reaches a cost of `until`, or the last. So a front that ends at cheap subnets goes on in
    the next one's dear subnets, and its own stretch is not covered twice.
    """
    ranks, costs = peel(points), np.asarray(points)[:, 1]
    taken = np.zeros(len(ranks), bool)
    for rank in range(ranks.max(initial=-1) + 1):
        dearest = costs[taken].max(initial=-np.inf)
        if dearest >= until:
            break
        taken |= (ranks == rank) & (costs > dearest)
    return taken


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Area that the points dominate below `reference` [2]. Points beyond it on either axis count nothing."""
    loss, cost = staircase(points)
    worst, dearest = np.asarray(reference, np.float64)
    inside = (loss < worst) & (cost < dearest)
    loss, cost = loss[inside], cost[inside]
    return float(np.sum((worst - loss) * np.diff(cost, append=dearest)))


def area(points: np.ndarray, low: float, high: float) -> float:
    """Mean over costs c from `low` to `high` of the lowest loss among points of cost c or less.

    This is the area under the loss-over-cost staircase divided by (high - low).

    Raises:
      ValueError: no point costs `low` or less, so the staircase does not begin there; or high <= low.
    """
    if not high > low:
        raise ValueError(f"area: expected high > low, got {high} and {low}.")
    loss, cost = staircase(points)
    if not len(cost) or cost[0] > low:
        cheapest = f"the cheapest costs {cost[0]:g}" if len(cost) else "there are no points"
        raise ValueError(f"area: expected a point of cost {low:g} or less; {cheapest}.")
    edges = np.clip(np.append(cost, high), low, high)
    return float(np.sum(loss * np.diff(edges)) / (high - low))


def staircase(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss [F], cost [F]) of the distinct points of the front, cost ascending, so loss descending."""
    points = _checked(points)
    loss, cost = np.unique(points[front(points)], axis=0)[::-1].T
    return loss, cost


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"expected finite points [N, 2], got shape {points.shape}; leave failed trials out.")
    return points
