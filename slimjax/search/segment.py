"""Points of a wanted cost on the way from one point to another.

Where a space has choices, they come after its groups: `groups` says how many entries of a point are widths. None: all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

POINTS_ON_A_SEGMENT = 65

CostRatio = Callable[[np.ndarray], np.ndarray]
"""Widths [..., d] to true costs [...] over the full network's."""


def random_widths(
    cost: CostRatio,
    target: float | None,
    low: np.ndarray,
    rng: np.random.Generator,
    groups: int | None = None,
) -> np.ndarray:
    """Layer-wise uniform random widths [d], moved towards the smallest or the full network to cost the target."""
    widths = rng.uniform(low, 1.0)
    if target is None:
        return widths
    corner = low if cost(widths) > target else np.ones_like(low)
    return nearest_between(cost, widths, corner, target, groups)


def nearest_between(
    cost: CostRatio, a: np.ndarray, b: np.ndarray, target: float, groups: int | None = None
) -> np.ndarray:
    """The point [d] on the way from a to b that costs nearest to the target.

    The way is the segment and, over the piece of it in which the cost passes the target, one coordinate after
    another: where all widths are equal, all channels round down at once, and the cost jumps. Grids, not bisection:
    rounding and repairs need not leave the cost monotone. Choices, which come after the groups, take an option of a or
    of b, and none between.
    """
    low, high = 0.0, 1.0
    for _ in range(2):
        shares = np.linspace(low, high, POINTS_ON_A_SEGMENT)
        points = _mix(a, b, shares[:, None], groups)
        above = cost(points) - target
        passes = np.flatnonzero((above[1:] > 0) != (above[:-1] > 0))
        cell = int(passes[0]) if len(passes) else min(int(np.abs(above).argmin()), len(shares) - 2)
        low, high = shares[cell : cell + 2].tolist()
    ends = _mix(a, b, high, groups), _mix(a, b, low, groups)
    turns = np.where(np.tri(len(a) + 1, len(a), -1, bool), *ends)
    points = np.concatenate([points, turns])
    return points[np.abs(cost(points) - target).argmin()]


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray | float, groups: int | None) -> np.ndarray:
    """(1 - share) a + share b, exact where the share is 0 or 1 and where a = b; of choices, the nearer end's."""
    mixed = np.clip((1 - share) * a + share * b, np.minimum(a, b), np.maximum(a, b))
    if groups is not None:
        mixed[..., groups:] = np.where(np.less(share, 0.5), a, b)[..., groups:]
    return mixed
