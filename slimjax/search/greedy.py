"""AutoSlim's greedy slimming: take away, again and again, what is missed least."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slimjax.checks import check, integer
from slimjax.errors import BadValue, RunError
from slimjax.nn.space import Space, Subnet
from slimjax.nn.widths import Group
from slimjax.search.base import Cost, Searcher, check_reachable, target_name, usable


class GreedyState(NamedTuple):
    """Where slimming stands.

    Args:
      subnet: int32 [G], what is left of the network.
      networks: int32 [T, G], the first subnet at or below each target, from the highest; zeros: not yet found.
      scores: float64 [T], theirs; NaN: not yet found, or the full network, which nothing was removed from.
      reached: how many targets are found.
    """

    subnet: Subnet
    networks: np.ndarray
    scores: np.ndarray
    reached: int


def greedy(space: Space, cost: Cost, targets: Sequence[float], groups: int = 10) -> Searcher:
    """From the full network, narrows in each round the one channel group whose narrowing scores best.

    A round asks for one candidate per channel group: the network with one step less of it. The lowest score
    wins; the first of equal ones does. When the cost is at or below a target for the first time, the network
    is recorded, and the next lower target is looked for; the search ends with the last one. One pass serves
    all targets: each gets what a pass of its own would find.

    Paper: Yu and Huang, AutoSlim, 2019, section 3; a score is the top-1 error on one large batch, with the norms'
    statistics of that batch.
    Differs: a step is the same share of a channel group, not of a layer: layers tied by a residual sum are
    narrowed together. A group that has its fewest channels is not asked for, where the authors add 1 to its error.

    Args:
      targets: costs, in any order.
      groups: steps from a channel group's full size to nothing. A step ends at the legal count nearest to
        channels * (1 - k / groups), the larger of two, and never below the fewest: 10 steps of a group of 100 with
        legal multiples of 8 go to 88, 80, 72, 64, 48, 40 and so on. Two readings of the paper exist: 10 groups a
        layer, and the released configurations' "divisor 12", which is 12 here; the released code sets neither.

    Raises:
      BadValue: no targets, targets that no subnet reaches, or a bad `groups`.
      RunError (tell): all candidates of a round failed.
    """
    limits = _descending(targets)
    check_reachable("targets", limits[-1], space, cost)
    check("groups", groups, integer(1))
    steps = tuple(ladder(space, group, groups) for group in space.groups)
    search = _Greedy(space, cost, limits, steps)
    return Searcher(search.init, search.ask, search.tell, search.done, search.found)


@dataclasses.dataclass(frozen=True)
class _Greedy:
    """The five functions of the search.

    Args:
      limits: float64 [T], the targets, the highest first.
      steps: for each channel group, the counts that it goes through, ascending.
    """

    space: Space
    cost: Cost
    limits: np.ndarray
    steps: tuple[np.ndarray, ...]

    def init(self) -> GreedyState:
        shape = (len(self.limits), len(self.space))
        empty = np.zeros(shape, np.int32), np.full(len(self.limits), np.nan)
        return self._recorded(GreedyState(self.space.largest.copy(), *empty, reached=0), np.nan)

    def ask(self, state: GreedyState) -> np.ndarray:
        candidates = np.tile(state.subnet, (len(self.steps), 1))
        pairs = zip(self.steps, state.subnet, strict=True)
        fewer = np.array([counts[counts < n].max(initial=0) for counts, n in pairs])
        np.fill_diagonal(candidates, fewer)
        return candidates[(fewer > 0) & (not self.done(state))]

    def tell(self, state: GreedyState, scores: np.ndarray) -> GreedyState:
        candidates = self.ask(state)
        scores = usable(scores, len(candidates))
        if np.isnan(scores).all():
            raise RunError(
                f"greedy slimming: none of the {len(candidates)} candidates after "
                f"{self.space.to_channels(state.subnet)} has a score."
            )
        best = np.nanargmin(scores)
        return self._recorded(state._replace(subnet=candidates[best]), scores[best])

    def done(self, state: GreedyState) -> bool:
        return state.reached == len(self.limits)

    def found(self, state: GreedyState) -> dict[str, Subnet]:
        names = [target_name(limit) for limit in self.limits[: state.reached]]
        return dict(zip(names, state.networks, strict=False))

    def _recorded(self, state: GreedyState, score: float) -> GreedyState:
        """The state with its subnet noted for all targets that it is the first to reach."""
        reached = int((self.limits >= float(self.cost(state.subnet))).sum())
        new = slice(state.reached, max(reached, state.reached))
        networks, known = state.networks.copy(), state.scores.copy()
        networks[new], known[new] = state.subnet, score
        return state._replace(networks=networks, scores=known, reached=new.stop)


def ladder(space: Space, group: Group, groups: int) -> np.ndarray:
    """Ascending legal channel counts that slimming a group step by step goes through (see `greedy`)."""
    legal = space.legal(group)[::-1]  # descending: argmin takes the first, the larger of two equally near
    ideal = group.channels * (1 - np.arange(groups + 1) / groups)
    return np.unique(legal[np.abs(legal[None, :] - ideal[:, None]).argmin(axis=1)])


def _descending(targets: Sequence[float]) -> np.ndarray:
    """The distinct targets, the highest first."""
    limits = np.unique(np.asarray(targets, np.float64))[::-1]
    if not limits.size or not np.isfinite(limits).all():
        raise BadValue("targets", f"expected one or more costs, got {list(targets)}.")
    return limits
