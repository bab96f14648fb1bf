"""Pruning: which channels of a network stay, by their norms. Pure functions on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slimjax.nn.space import Space, Subnet
from slimjax.search.base import Cost


class Pruned(NamedTuple):
    """What is left of a subnet.

    Args:
      subnet: int32 [G].
      cutoff: channels below this share of their group's largest norm went.
      floored: groups of which more would have gone, if every group did not keep a few (`Space.lowest`).
    """

    subnet: Subnet
    cutoff: float
    floored: tuple[str, ...]


Norms = Mapping[str, np.ndarray]
"""Group name to the norms of its channels [C]. A group that is not named is not pruned."""


def relative(norms: Norms, space: Space, subnet: Subnet) -> dict[str, np.ndarray]:
    """The norms of each group's channels in a subnet, over the largest of them; 0 where all are 0."""
    found = {}
    for group, count in zip(space.groups, subnet, strict=True):
        if group.name in norms:
            own = np.asarray(norms[group.name], np.float64)[:count]
            found[group.name] = own / (own.max() or 1.0)
    return found


def above(shares: Norms, space: Space, subnet: Subnet, cutoff: float) -> Pruned:
    """What is left of a subnet without the channels whose share of their group's largest norm is below the cutoff.

    Each group keeps a legal number of channels: the next larger one, and never fewer than the space's lowest. So no
    group is ever empty.

    Args:
      shares: of `relative`.
    """
    kept, floored = [], []
    for group, count, low in zip(space.groups, subnet, space.lowest, strict=True):
        wanted = int((shares[group.name] >= cutoff).sum()) if group.name in shares else int(count)
        legal = space.legal(group)
        kept.append(min(int(count), int(legal[np.searchsorted(legal, min(wanted, group.channels))])))
        if wanted < low:
            floored.append(group.name)
    return Pruned(np.array(kept, np.int32), float(cutoff), tuple(floored))


def to_budget(shares: Norms, space: Space, subnet: Subnet, cost: Cost, budget: float) -> Pruned:
    """The channels of a subnet above the lowest cutoff whose cost is within a budget, and more that still fit in.

    One channel of a residual stream may cost several per cent of a small network, so a cutoff alone can leave much of
    the budget unused. Of the channels below it the strongest ones are kept, one after the other, that do not exceed it.

    Args:
      cost: of subnets; `budget` is in its unit, and at least that of the space's smallest subnet.
    """
    cutoffs = np.unique(np.concatenate([[0.0], *shares.values(), [np.inf]]))
    # The cost falls with the cutoff: bisect for the first one that is within the budget.
    low, high = -1, len(cutoffs) - 1
    while high - low > 1:
        middle = (low + high) // 2
        over = float(cost(above(shares, space, subnet, cutoffs[middle]).subnet)) > budget
        low, high = (middle, high) if over else (low, middle)
    found = above(shares, space, subnet, cutoffs[high])
    return found._replace(subnet=_filled(shares, space, found.subnet, subnet, cost, budget))


def _filled(shares: Norms, space: Space, subnet: Subnet, most: Subnet, cost: Cost, budget: float) -> Subnet:
    """The subnet with further channels, up to `most`, as long as any fit into the budget: the strongest first."""
    strength = {name: np.sort(own)[::-1] for name, own in shares.items()}
    while True:
        fitting = []
        for index, group in enumerate(space.groups):
            legal = space.legal(group)
            larger = subnet.copy()
            larger[index] = legal[min(np.searchsorted(legal, subnet[index], side="right"), len(legal) - 1)]
            if (
                group.name in shares
                and subnet[index] < larger[index] <= most[index]
                and cost(larger) <= budget
            ):
                fitting.append((float(strength[group.name][subnet[index]]), -index, larger))
        if not fitting:
            return subnet
        subnet = max(fitting, key=lambda one: one[:2])[2]


REACHED_AT = 0.75
"""The part of a round after which the budget should be met; the rest of it lets the network settle."""

GAIN, MOST = 4.0, 0.3
"""The logarithm of a strength moves by `GAIN` times the distance from the course; by `MOST` at once."""


def course(start: float, part: float) -> float:
    """What should be left after this part of a round, over the budget, if `start` was at its beginning."""
    return max(1.0, start + (1 - start) * part / REACHED_AT)


def steered(strength: float, left: float, wanted: float) -> float:
    """A penalty's strength, raised where more is left than wanted, and lowered where less is; both over the budget."""
    return strength * math.exp(min(MOST, max(-MOST, GAIN * (left - wanted))))


PULL = 0.1
"""By what part of the cutoff's norm one update's penalty may move a channel: a momentum of 0.9 adds up ten."""


def strongest(norms: Norms, cutoff: float, rate: float) -> float:
    """The largest strength of a penalty with which channels come to rest below the cutoff.

    With a stronger one, each update throws channels that should vanish from one side of zero to the other, further
    than the cutoff is away.

    Args:
      norms: [C] by group; the mean of the groups' largest counts.
      cutoff: a share of the largest norm.
      rate: of learning, now; at 0 nothing moves, and any strength will do.
    """
    largest = float(np.mean([norm.max() for norm in norms.values()]))
    return PULL * cutoff * largest / rate if rate > 0 else math.inf


EDGES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def histogram(shares: Norms, edges: Sequence[float] = EDGES) -> dict[str, float]:
    """The fraction of all channels whose share of their group's largest norm lies between neighbouring edges, by name.

    >>> histogram({"a": np.array([0.01, 0.04, 0.6, 1.0])}, (0.05, 0.5))
    {'0-0.05': 0.5, '0.05-0.5': 0.0, '0.5-1': 0.5}
    """
    values = np.concatenate(list(shares.values()))
    bounds = [0.0, *edges, 1.0]
    counts, _ = np.histogram(values, [*bounds[:-1], np.inf])
    return {
        f"{low:g}-{high:g}": float(count) / len(values)
        for low, high, count in zip(bounds[:-1], bounds[1:], counts, strict=True)
    }
