"""Rounds of a penalty that shrinks channels, and what is pruned after each: nested subnets, as leading slices."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from slimjax import sharding
from slimjax.algorithms.phases import Changes
from slimjax.budgets import Budget
from slimjax.nn import filters, reorder
from slimjax.nn.space import Subnet
from slimjax.search import pruning
from slimjax.search.pruning import Pruned
from slimjax.step.engine import Engine
from slimjax.step.state import TrainState, Tree

Arrays = dict[str, Any]
"""For k rounds: `subnets` int32 [k, G], what each has left; of what it found, float32 [k]: `strengths`, `cutoffs`, and
`by_cutoff`, the cost that the fixed cutoff alone would have left, over the budget (NaN: not known yet, or no budget);
`floored` bool [k, G]; and `penalty`, the knobs of the step."""


class Round(NamedTuple):
    """One round of pruning.

    Args:
      strength: lambda; with a budget, where its search begins.
      clip: a of the clipped penalty.
      budget: what its subnet may cost; None: what the cutoff leaves.
    """

    strength: float
    clip: float
    budget: Budget | None = None


ADJUSTMENTS = 40
"""Of the strength, in a round."""


@dataclasses.dataclass(frozen=True)
class LassoRounds:
    """What happens before, in and after each round.

    Args:
      rounds: in order; each prunes what the one before has left.
      firsts: first update of each round, and of what comes after the last.
      cutoff: channels below this share of the largest norm of their group count as pruned.
      rate: the learning rate by update.
    """

    engine: Engine
    rounds: Sequence[Round]
    firsts: Sequence[int]
    cutoff: float
    rate: optax.Schedule

    @functools.cached_property
    def changes(self) -> Changes:
        return Changes(self.engine)

    def init(self) -> Arrays:
        """Nothing pruned."""
        count, groups = len(self.rounds), len(self._space)
        return {
            "subnets": np.tile(self._space.largest, (count, 1)),
            **{name: np.full(count, np.nan, np.float32) for name in ("strengths", "cutoffs", "by_cutoff")},
            "floored": np.zeros((count, groups), np.bool_),
            "penalty": self._knobs(0, self._space.largest),
        }

    def subnet(self, arrays: Arrays, number: int) -> Subnet:
        """What is left after `number` rounds, int32 [G]; the whole network after none."""
        return arrays["subnets"][number - 1] if number else self._space.largest

    def begun(self, state: TrainState, number: int) -> TrainState:
        """At the beginning of round `number`, from 0: its penalty is on, and nothing moves yet."""
        arrays = state.algorithm | {"penalty": self._knobs(number, self.subnet(state.algorithm, number))}
        return dataclasses.replace(self.changes.rested(state), algorithm=arrays)

    def adjusted(self, state: TrainState, step: int) -> TrainState:
        """Where the budget is ahead of the course, the penalty is weakened; where it is behind, strengthened."""
        number = int(np.searchsorted(self.firsts, step, side="right")) - 1
        if not 0 <= number < len(self.rounds) or (budget := self.rounds[number].budget) is None:
            return state
        done, span = step - self.firsts[number], self.firsts[number + 1] - self.firsts[number]
        if not done or done % max(1, span // ADJUSTMENTS):
            return state
        share, course = self._progress(state, number, budget, done / span)
        norms = self._norms(state, self.subnet(state.algorithm, number))
        most = pruning.strongest(norms, self.cutoff, float(self.rate(step)))
        knobs = state.algorithm["penalty"]
        strength = np.float32(min(most, pruning.steered(float(knobs["strength"]), share, course)))
        arrays = state.algorithm | {"penalty": sharding.from_leader(knobs | {"strength": np.array(strength)})}
        return dataclasses.replace(state, algorithm=arrays)

    def ended(self, state: TrainState, number: int) -> TrainState:
        """After round `number`: what is pruned comes behind what stays, and the subnet is written down.

        What earlier rounds have left stays a leading slice too.
        """
        arrays, round_ = state.algorithm, self.rounds[number]
        before = self.subnet(arrays, number)
        norms = self._norms(state, before)
        shares = pruning.relative(norms, self._space, before)
        pruned = pruning.above(shares, self._space, before, self.cutoff)
        by_cutoff = math.nan
        if round_.budget is not None:
            cost = round_.budget.share(self.engine.net)
            by_cutoff = float(cost(pruned.subnet))
            pruned = pruning.to_budget(shares, self._space, before, cost, 1.0)
        order = reorder.order(self.engine.net.records, self._space, norms, arrays["subnets"][:number])
        found, order = sharding.from_leader((self._written(arrays, number, pruned, by_cutoff), order))
        return dataclasses.replace(self.changes.reordered(state, order), algorithm=found)

    def measured(self, state: TrainState, step: int) -> dict[str, float]:
        """In a round: how many channels are nearly gone, a histogram of the norms, and how far the budget is."""
        number = int(np.searchsorted(self.firsts, step, side="left")) - 1
        if not 0 <= number < len(self.rounds):
            return {}
        before = self.subnet(state.algorithm, number)
        shares = pruning.relative(self._norms(state, before), self._space, before)
        small = [(share < self.cutoff).mean() for share in shares.values()]
        figures = {
            "prune/round": number + 1.0,
            "prune/strength": float(state.algorithm["penalty"]["strength"]),
            "prune/sparsity": float(np.mean(small)),
            **{f"prune/norms_{name}": part for name, part in pruning.histogram(shares).items()},
        }
        if (budget := self.rounds[number].budget) is not None:
            span = self.firsts[number + 1] - self.firsts[number]
            figures["prune/cost_over_budget"], figures["prune/course_over_budget"] = self._progress(
                state, number, budget, (step - self.firsts[number]) / span
            )
        return figures

    def told(self, arrays: Arrays, number: int) -> str:
        """What round `number` has left, in words."""
        subnet, budget = arrays["subnets"][number], self.rounds[number].budget
        macs = float(self.engine.net.macs(subnet) / self.engine.net.macs(self._space.largest))
        strength, cutoff, by_cutoff = (arrays[name][number] for name in ("strengths", "cutoffs", "by_cutoff"))
        words = f"round {number + 1} has left {subnet.sum()} channels, {macs:.1%} of the MACs"
        if budget is not None:
            share = float(budget.share(self.engine.net)(subnet))
            words += f"; {budget}: {share:.1%} of it ({by_cutoff:.1%} by a cutoff of {self.cutoff:g})"
        words += f"; lambda {strength:.3g}, cutoff {cutoff:.3g}"
        if arrays["floored"][number].any():
            names = [
                g.name for g, low in zip(self._space.groups, arrays["floored"][number], strict=True) if low
            ]
            words += f"; kept from falling below the smallest width: {', '.join(names)}"
        return words

    @property
    def _space(self) -> Any:
        return self.engine.net.space

    def _knobs(self, number: int, active: Subnet) -> Tree:
        round_ = self.rounds[number]
        return {
            "strength": np.array(round_.strength, np.float32),
            "clip": np.array(round_.clip, np.float32),
            "active": np.asarray(active, np.int32),
        }

    def _progress(self, state: TrainState, number: int, budget: Budget, part: float) -> tuple[float, float]:
        """What the cutoff would leave now, and what it should leave after this part of the round; over the budget."""
        before = self.subnet(state.algorithm, number)
        shares = pruning.relative(self._norms(state, before), self._space, before)
        left = pruning.above(shares, self._space, before, self.cutoff).subnet
        now, start = budget.share(self.engine.net)(np.stack([left, before]))
        return float(now), pruning.course(float(start), part)

    def _written(self, arrays: Arrays, number: int, pruned: Pruned, by_cutoff: float) -> Arrays:
        new = {name: value.copy() for name, value in arrays.items() if name != "penalty"}
        new["subnets"][number:] = pruned.subnet
        new["strengths"][number] = arrays["penalty"]["strength"]
        new["cutoffs"][number], new["by_cutoff"][number] = pruned.cutoff, by_cutoff
        new["floored"][number] = [group.name in pruned.floored for group in self._space.groups]
        return new | {"penalty": arrays["penalty"]}

    def _norms(self, state: TrainState, active: Subnet) -> Mapping[str, np.ndarray]:
        return sharding.fetch(self._active_norms(state.params, active))

    @functools.cached_property
    def _active_norms(self) -> Any:
        net = self.engine.net
        return jax.jit(
            lambda params, active: filters.norms(
                net.records, filters.within(net.records, net.space, params, active)
            )
        )
