"""What a search is: five pure functions over explicit state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from slimjax.errors import BadValue
from slimjax.nn.choices import Choice
from slimjax.nn.space import Space, Subnet

Cost = Callable[[np.ndarray], Any]
"""int32 [..., G] -> [...]: what subnets cost (MACs, parameters, bytes, milliseconds). It rises with channels,
and with options that have an order."""


class Searcher(NamedTuple):
    """A search that asks for subnets and is told their scores: the lower, the better.

    State is a NamedTuple of arrays and numbers, of the same shapes from first to last, so it can be checkpointed.
    All five are deterministic in their arguments. A subnet is asked for once, whatever its score, where a search does
    not say otherwise.

    Args:
      init: () -> state.
      ask: state -> int32 [N, G], legal subnets; asked twice it answers the same. Empty when done.
      tell: (state, float [N]) -> state, having learnt the scores of what `ask` asked for. NaN: a trial that
        failed; it is never chosen.
      done: state -> whether the search has ended.
      found: state -> the best subnets so far, by the name of their target (`target_name`).
    """

    init: Callable[[], Any]
    ask: Callable[[Any], np.ndarray]
    tell: Callable[[Any, np.ndarray], Any]
    done: Callable[[Any], bool]
    found: Callable[[Any], dict[str, Subnet]]


def target_name(target: float) -> str:
    """The shortest text that is this cost: 305166496.0 gives "305166496"."""
    return str(int(target)) if float(target).is_integer() else repr(float(target))


def usable(scores: Any, count: int) -> np.ndarray:
    """Returns scores as float64 [count]; those that are not finite are NaN. Raises: ValueError: another shape."""
    scores = np.array(scores, np.float64)
    if scores.shape != (count,):
        raise ValueError(f"scores: expected shape ({count},), got {scores.shape}")
    return np.where(np.isfinite(scores), scores, np.nan)


def unordered(space: Space) -> np.ndarray:
    """bool [G]: the axes that are choices whose neighbouring options are not alike."""
    return np.array([isinstance(axis, Choice) and not axis.ordered for axis in space.axes], bool)


def check_reachable(name: str, budget: float, space: Space, cost: Cost, *, below: bool = False) -> None:
    """Raises: BadValue: a budget that is no finite number, or that no subnet of the space meets.

    Args:
      below: a subnet has to cost less than the budget, not just as much.
    """
    least, most = _extreme(space, cost, space.lowest, min), _extreme(space, cost, space.largest, max)
    if not np.isfinite(budget) or budget < least or (below and budget == least):
        raise BadValue(
            name,
            f"expected a cost {'above' if below else 'of at least'} {least:.10g}, got {budget:.10g}: this network's "
            f"subnets cost {least:.10g} to {most:.10g}. Raise it, or lower the space's smallest width "
            f"({space.min_width:g}).",
        )


def _extreme(space: Space, cost: Cost, subnet: Subnet, better: Callable[..., float]) -> float:
    """The least or most that subnets cost: at one end of all ordered axes; other options are exchanged one by one."""
    found = float(cost(space.canonical(subnet)))
    for i in np.tile(np.flatnonzero(unordered(space)), 2):  # options may bring others along
        rows = np.tile(subnet, (len(space.legal(space.axes[i])), 1))
        rows[:, i] = space.legal(space.axes[i])
        costs = np.asarray(cost(space.canonical(rows)), np.float64).tolist()
        if better(*costs, found) != found:
            found = better(costs)
            subnet = rows[costs.index(found)]
    return found
