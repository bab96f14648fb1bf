"""AutoSlim's greedy slimming: take away, again and again, what is missed least."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slimjax.checks import check, integer
from slimjax.errors import BadValue, RunError
from slimjax.nn.choices import Choice
from slimjax.nn.space import Axis, Space, Subnet
from slimjax.search.base import Cost, Searcher, check_reachable, target_name, unordered, usable


class GreedyState(NamedTuple):
    """Where slimming stands.

    Args:
      subnet: int32 [G], what is left of the network.
      networks: int32 [T, G], what is recorded for each target, from the highest; zeros: not yet found.
      scores: float64 [T], theirs; NaN: not yet found.
      reached: how many targets are found.
    """

    subnet: Subnet
    networks: np.ndarray
    scores: np.ndarray
    reached: int


def greedy(space: Space, cost: Cost, targets: Sequence[float], groups: int = 10) -> Searcher:
    """From the full network, narrows in each round the one channel group whose narrowing scores best.

    A round asks for one candidate per channel group: the network with one step less of it. The lowest score
    wins; the first of equal ones does. Once that network costs less than the target, it is recorded, and the next
    lower target is looked for; the search ends with the last one. One pass serves all targets, with one network
    each: a step that passes two targets at once serves the higher one, and the lower one gets a step more. So the
    full network is never recorded, even for a target that it meets. If nothing is left to narrow, all
    remaining targets get the last network.

    Of an ordered choice, the next lower option is a candidate; of an unordered one, every option that makes the network
    cheaper, so one that was not taken may be asked for again. Axes that an option brings along begin at full size, and
    such a network must be cheaper, too.

    Paper: Yu and Huang, AutoSlim, 2019, section 3; a score is the top-1 error on one large batch, with the norms'
    statistics of that batch.
    Differs: choices; a step is the same share of a channel group, not of a layer: layers tied by a residual sum are
    narrowed together. A group that has its fewest channels is not asked for, where the authors add 1 to its error.

    Args:
      targets: costs that networks are to be below, in any order.
      groups: steps from a channel group's full size to nothing. A step ends at the legal count nearest to
        channels * (1 - k / groups), the larger of two, and never below the fewest: 10 steps of a group of 100 with
        legal multiples of 8 go to 88, 80, 72, 64, 48, 40 and so on. Two readings of the paper exist: 10 groups a
        layer, and the released configurations' "divisor 12", which is 12 here; the released code sets neither.

    Raises:
      BadValue: no targets, targets that no subnet is below, a space with nothing to narrow, or a bad `groups`.
      RunError (tell): all candidates of a round failed.
    """
    limits = _descending(targets)
    check_reachable("targets", limits[-1], space, cost, below=True)
    check("groups", groups, integer(1))
    steps = tuple(ladder(space, axis, groups) for axis in space.axes)
    if all(len(counts) == 1 for counts in steps):
        raise BadValue("targets", "no channel group of this network can be narrowed: it has one subnet only.")
    search = _Greedy(space, cost, limits, steps)
    return Searcher(search.init, search.ask, search.tell, search.done, search.found)


@dataclasses.dataclass(frozen=True)
class _Greedy:
    """The five functions of the search.

    Args:
      limits: float64 [T], the targets, the highest first.
      steps: for each axis, the entries that it goes through, ascending.
    """

    space: Space
    cost: Cost
    limits: np.ndarray
    steps: tuple[np.ndarray, ...]

    def init(self) -> GreedyState:
        shape = (len(self.limits), len(self.space))
        empty = np.zeros(shape, np.int32), np.full(len(self.limits), np.nan)
        return GreedyState(self.space.canonical(self.space.largest.copy()), *empty, reached=0)

    def ask(self, state: GreedyState) -> np.ndarray:
        return self._narrower(state.subnet)[: 0 if self.done(state) else None]

    def tell(self, state: GreedyState, scores: np.ndarray) -> GreedyState:
        candidates = self.ask(state)
        scores = usable(scores, len(candidates))
        if np.isnan(scores).all():
            raise RunError(
                f"greedy slimming: none of the {len(candidates)} candidates after "
                f"{self.space.to_channels(state.subnet)} has a score."
            )
        best = np.nanargmin(scores)
        subnet, networks, known = candidates[best], state.networks.copy(), state.scores.copy()
        new = slice(state.reached, self._reached(subnet, state.reached))
        networks[new], known[new] = subnet, scores[best]
        return GreedyState(subnet, networks, known, reached=new.stop)

    def done(self, state: GreedyState) -> bool:
        return state.reached == len(self.limits)

    def found(self, state: GreedyState) -> dict[str, Subnet]:
        names = [target_name(limit) for limit in self.limits[: state.reached]]
        return dict(zip(names, state.networks, strict=False))

    def _reached(self, subnet: Subnet, before: int) -> int:
        """How many targets are found, now that the network is narrowed to this."""
        if not len(self._narrower(subnet)):
            return len(self.limits)
        return before + bool(self.cost(subnet) < self.limits[before])

    def _narrower(self, subnet: Subnet) -> np.ndarray:
        """int32 [N, G]: the subnet with a step less of each axis that it has, where there is one."""
        exists = self.space.exists(subnet)
        steps = [(i, entry) for i in np.flatnonzero(exists).tolist() for entry in self._below(subnet, i)]
        rows = np.tile(subnet, (len(steps), 1))
        for row, (i, entry) in zip(rows, steps, strict=True):
            row[i] = entry
        brings = self.space.exists(rows) & ~exists
        rows = self.space.canonical(np.where(brings, self.space.largest, rows))
        unsure = brings.any(axis=1) | self._unordered[[i for i, _ in steps]]
        if not unsure.any():
            return rows
        return rows[~unsure | (np.asarray(self.cost(rows)) < self.cost(subnet))]

    def _below(self, subnet: Subnet, i: int) -> np.ndarray:
        """The entries of axis i that a step may lead to: all other options of an unordered choice, else one at most."""
        if self._unordered[i]:
            return self.steps[i][self.steps[i] != subnet[i]]
        return self.steps[i][self.steps[i] < subnet[i]][-1:]

    @functools.cached_property
    def _unordered(self) -> np.ndarray:
        return unordered(self.space)


def ladder(space: Space, axis: Axis, groups: int) -> np.ndarray:
    """Ascending legal entries that slimming an axis goes through (see `greedy`): of a choice, all options."""
    legal = space.legal(axis)[::-1]  # descending: argmin takes the first, the larger of two equally near
    if isinstance(axis, Choice):
        return legal[::-1]
    ideal = axis.channels * (1 - np.arange(groups + 1) / groups)
    return np.unique(legal[np.abs(legal[None, :] - ideal[:, None]).argmin(axis=1)])


def _descending(targets: Sequence[float]) -> np.ndarray:
    """The distinct targets, the highest first."""
    limits = np.unique(np.asarray(targets, np.float64))[::-1]
    if not limits.size or not np.isfinite(limits).all():
        raise BadValue("targets", f"expected one or more costs, got {list(targets)}.")
    return limits
