"""TF-NAS's elasticity-scaling: the channels of one architecture, scaled until it costs what it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slimjax.nn.space import Space, Subnet
from slimjax.search.base import Cost, check_reachable


def elastic(space: Space, cost: Cost, subnet: Subnet, target: float, stages: Mapping[str, int]) -> Subnet:
    """Scales the channels of a subnet, first of all stages, then of fewer and fewer, until it costs what it may.

    A pass scales some groups together. In each of its iterations a group gains, or loses, as many channels as it was
    times as wide as the narrowest of them when the pass began; its fewest and its most channels end that. A subnet that
    costs too much shrinks over all stages until it costs less than the target. Any other grows over all stages, and
    the last state before the target is exceeded is kept. Then, for start = 2, 3, ..., the stages from start to the
    last grow in the same way. So the result never costs more than the target, and each pass comes nearer to it. Choices
    and groups that the subnet does not have stay as they are.

    Paper: Hu et al., TF-NAS, ECCV 2020, elasticity-scaling.
    Differs: a group whose legal counts are coarser than one channel counts the channels all the same, and waits at the
    last legal count that it has passed. A pass is costed in one call.
    Reduces to: one pass over the whole network, where all groups are in one stage.

    Args:
      cost: of subnets; `target` is in its unit.
      subnet: int32 [G], legal.
      stages: group name to the number of its stage, from 1 (such as `Space.stages`); other groups do not move.

    Raises:
      BadValue: an illegal subnet, or a target that it exceeds at its fewest channels.
    """
    subnet = space.canonical(space.check(subnet))
    stage = space.exists(subnet) * np.array([stages.get(axis.name, 0) for axis in space.axes])
    ends = (np.where(stage, end, subnet) for end in (space.lowest, space.largest))
    check_reachable("target", target, space, cost, ends=tuple(ends))
    legal = {int(i): np.union1d(space.legal(space.axes[i]), subnet[i]) for i in np.flatnonzero(stage)}
    first = 1
    if cost(subnet) > target:
        states = _states(subnet, legal, -1)
        below = _first(cost(states) < target)
        subnet, first = states[min(below, len(states) - 1)], 2  # the last may just meet the target
    for start in range(first, stage.max() + 1):
        states = _states(subnet, {i: counts for i, counts in legal.items() if stage[i] >= start}, 1)
        subnet = states[_first(cost(states) > target) - 1]
    return subnet


def _states(subnet: Subnet, legal: Mapping[int, np.ndarray], sign: int) -> Subnet:
    """int32 [T, G]: the subnet, and what it is after each iteration of a pass, until no group can move.

    Args:
      legal: ascending legal counts of the groups that move, by their position.
      sign: 1 to grow, -1 to shrink.
    """
    narrowest = min((subnet[i] for i in legal), default=1)
    steps = {i: round(subnet[i] / narrowest) for i in legal}
    room = {i: abs(int(counts[-1 if sign > 0 else 0]) - subnet[i]) for i, counts in legal.items()}
    iterations = np.arange(1 + max((-(-room[i] // steps[i]) for i in legal), default=0))
    states = np.tile(subnet, (len(iterations), 1))
    for i, counts in legal.items():
        states[:, i] = _passed(counts, subnet[i] + sign * steps[i] * iterations, sign)
    return states


def _passed(legal: np.ndarray, counts: np.ndarray, sign: int) -> np.ndarray:
    """The legal counts that counts have passed last on their way up (1) or down (-1)."""
    if sign > 0:
        return legal[np.searchsorted(legal, counts, "right") - 1]
    return legal[np.searchsorted(legal, counts, "left")]


def _first(met: np.ndarray | Sequence[bool]) -> int:
    """Position of the first that is met; behind the last, if none is."""
    return int(np.append(met, True).argmax())
