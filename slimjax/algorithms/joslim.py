"""Joint optimisation of widths and weights: the sandwich rule on widths that a Bayesian optimiser proposes.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural Networks,
ECML 2021.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from slimjax.algorithms.ahead import Ahead
from slimjax.algorithms.base import Algorithm, Chosen, Score, learning
from slimjax.algorithms.history import Arrays, History
from slimjax.algorithms.turns import throughout
from slimjax.budgets import Resource
from slimjax.checks import check, integer, under
from slimjax.errors import BadValue
from slimjax.nn.space import Subnet
from slimjax.search import bayes, pareto
from slimjax.search.bayes_options import BayesOptions
from slimjax.step.composed import ComposedStep
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState
from slimjax.vectors import WidthVectors

HOW = ("prior", "searched", "segment", "random")
SAMPLE = 256
"""Random subnets that rungs are chosen for (`WidthVectors.sample`)."""

SPREAD = 0.2
NEARLY_FULL = 0.9
"""The front that is evaluated goes on, in the fronts behind it, to this fraction of the largest network's cost."""


def joslim(
    engine: Engine,
    *,
    num_sampled: int = 2,
    steps_per_round: int = 235,
    ahead_steps: int = 0,
    history: int = 1024,
    rescore: bool = True,
    resource: str = "macs",
    table: str | None = None,
    nondecreasing: bool = True,
    share_fractions: bool = False,
    search: Mapping[str, Any] = MappingProxyType({}),
    search_seed: int = 3080,
) -> Algorithm:
    """Rounds of K steps on max, M proposed and min; before each round the whole history is scored again.

    The first 20 proposals have one random width for all groups, and random options where those have no order; the
    21st is the full network; then MOBO-TS2 proposes (`search.bayes`). The largest learns from labels, all others from
    its detached softmax.

    Paper: sections 3.2 to 3.4 (targeted sampling, local approximation, temporal sharing), algorithm 1.
    Differs: from the authors' code, which scores the history on the test set; here on held-out training images.
    There a fresh trial has a loss of 0 until the next round; here it is left out until it is scored.
    Reduces to: US-Net, when every proposal has one width for all groups.

    Args:
      num_sampled: M.
      steps_per_round: K.
      ahead_steps: so many steps before a round the history is scored and the search begins, on a thread, while
        the devices go on. 0, as in the paper: they wait for it.
      history: most trials that are kept; beyond that the oldest are forgotten.
      rescore: False keeps a trial's first score for ever (an ablation).
      resource: of `budgets.RESOURCES`; `table`: for "latency_ms".
      nondecreasing, share_fractions: see `vectors.WidthVectors`.
      search: fields of `search.bayes_options.BayesOptions` that differ from the paper's.
      search_seed: proposals are a function of it, their number and the history.
    """
    _check(num_sampled, steps_per_round, ahead_steps, history, search_seed)
    vectors = WidthVectors(engine.net, Resource(resource, table), nondecreasing, share_fractions)
    trials = History(vectors, history, HOW, rescore)
    rounds = _Rounds(trials, num_sampled, _bayes_options(search), search_seed)
    slots = _slots(engine, num_sampled)
    return Algorithm(
        phases=throughout(ComposedStep(engine, slots, vectors.sample(search_seed, SAMPLE, SPREAD))),
        init=lambda seed: engine.init(seed, slots, rounds.init()),
        revise=learning(_observer(rounds, steps_per_round, ahead_steps)),
        propose=lambda arrays, step: rounds.current(arrays),
        choose=functools.partial(_choose, rounds),
        trials=trials.trials,
        needs_scores=True,
    )


def _check(num_sampled: int, steps_per_round: int, ahead_steps: int, history: int, search_seed: int) -> None:
    check("num_sampled", num_sampled, integer(1))
    check("steps_per_round", steps_per_round, integer(1))
    check("ahead_steps", ahead_steps, integer(0, steps_per_round - 1))
    check("history", history, integer(bayes.PRIOR_POINTS + num_sampled))
    check("search_seed", search_seed, integer(0))


def _observer(
    rounds: _Rounds, steps_per_round: int, ahead_steps: int
) -> Callable[[Arrays, int, Score], Arrays]:
    """Scores the history again before each round, and writes the round's proposals down."""
    proposals = Ahead(rounds.proposals)

    def observe(arrays: Arrays, step: int, score: Score) -> Arrays:
        turn = (step + ahead_steps) % steps_per_round
        if turn == 0 and step:
            arrays = rounds.history.scored(arrays, score)
            proposals.begin(arrays)
        if step % steps_per_round == 0 and step:
            arrays = rounds.history.extended(arrays, proposals.result(arrays))
        return arrays

    return observe


def _choose(rounds: _Rounds, state: TrainState, subnets: Mapping[str, Subnet] | None) -> dict[str, Chosen]:
    named = rounds.best(state.algorithm) if subnets is None else subnets
    return {name: Chosen(subnet, stats="max") for name, subnet in named.items()}


def _slots(engine: Engine, num_sampled: int) -> tuple[Slot, ...]:
    """Paper: the largest first, for it teaches; the smallest last."""
    space = engine.net.space
    return (
        Slot("max", tuple(space.largest.tolist()), stats="max"),
        *(Slot(f"sampled{i}", target="teacher", lasting=True) for i in range(1, num_sampled + 1)),
        Slot("min", tuple(space.smallest.tolist()), stats="min", target="teacher"),
    )


def _bayes_options(search: Mapping[str, Any]) -> BayesOptions:
    known = [field.name for field in dataclasses.fields(BayesOptions)]
    if unknown := sorted(set(search) - set(known)):
        raise BadValue("search", f"no {', '.join(unknown)}. It has: {', '.join(known)}.")
    with under("search."):
        return BayesOptions(**search)


@dataclasses.dataclass(frozen=True)
class _Rounds:
    """The rounds' proposals: pure functions of the history."""

    history: History
    per_round: int
    options: BayesOptions
    seed: int

    def init(self) -> Arrays:
        """A history of the first round's proposals."""
        empty = self.history.empty(warm=bayes.Warm.length(len(self.history.vectors.net.space)))
        return self.history.extended(empty, self.proposals(empty))

    def proposals(self, arrays: Arrays) -> list[Arrays]:
        """The next round's: what `extended` writes down, one after the other."""
        found: list[Arrays] = []
        for number in range(int(arrays["count"]), int(arrays["count"]) + self.per_round):
            warm = found[-1]["warm"] if found else arrays["warm"]
            found.append(self._proposal({**arrays, "warm": warm}, number))
        return found

    def current(self, arrays: Arrays) -> Subnet:
        """This round's subnets, int32 [M, G]."""
        return self.history.newest(arrays, self.per_round)

    def best(self, arrays: Arrays) -> dict[str, Subnet]:
        """The history's front, gone on with until it reaches nearly the full cost (`pareto.extended`), and both ends.

        Paper: the authors' evaluation. Of trials with the same subnet one is kept.
        """
        vectors = self.history.vectors
        space = vectors.net.space
        named = {"min": space.smallest, "max": space.largest}
        known = self.history.known(arrays)
        if len(known):
            subnets = vectors.subnets(arrays["widths"][known])
            points = np.stack([arrays["loss"][known], vectors.cost(subnets)], 1)
            front = np.flatnonzero(pareto.extended(points, NEARLY_FULL))
            numbers = self.history.numbers(arrays)[known]
            named |= {f"trial{numbers[i]}": subnets[i] for i in front}
        first = {tuple(subnet): name for name, subnet in reversed(named.items())}
        return {name: subnet for name, subnet in named.items() if first[tuple(subnet)] == name}

    def _proposal(self, arrays: Arrays, number: int) -> Arrays:
        """Widths [G] with what is to be written down beside them."""
        rng = np.random.default_rng((self.seed, number))
        vectors, dims = self.history.vectors, arrays["widths"].shape[1]
        if (first := bayes.prior(number, dims, vectors.low, rng, vectors.encoding)) is not None:
            return self.history.written(first, None, "prior", arrays["warm"])
        known, start = self.history.known(arrays), bayes.Warm.unpack(arrays["warm"])
        visited = arrays["widths"][known].astype(np.float64), arrays["loss"][known].astype(np.float64)
        cost = lambda widths: vectors.cost(vectors.subnets(widths))  # noqa: E731
        found = bayes.propose(*visited, cost, vectors.low, rng, self.options, start, vectors.encoding)
        warm = arrays["warm"] if found.warm is None else found.warm.packed(dims)
        return self.history.written(found.widths, found.target, found.how, warm)
