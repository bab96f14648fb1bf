"""Joslim's Bayesian optimiser as a search on frozen weights: the TwoStage baseline of its authors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from slimjax.checks import check, integer
from slimjax.nn.space import Subnet
from slimjax.search import bayes
from slimjax.search.base import Cost, Searcher, target_name, usable
from slimjax.search.bayes_options import BayesOptions


class MoboState(NamedTuple):
    """Where the search stands.

    Args:
      fractions: float64 [T + 1, d], of trials told, and of the next one; the rest is not used yet.
      scores: float64 [T]; NaN: failed, or not told yet.
      told: how many trials.
    """

    fractions: np.ndarray
    scores: np.ndarray
    told: int


def mobo(
    subnets: Callable[[np.ndarray], Subnet],
    cost: Cost,
    largest: Subnet,
    low: float,
    *,
    budgets: Sequence[float],
    trials: int,
    options: BayesOptions | None = None,
    seed: int = 0,
) -> Searcher:
    """Asks for one subnet at a time, as `bayes` proposes it; finds the best within each budget.

    Paper: Joslim, section 4, TwoStage.

    Args:
      subnets: fractions [..., d] of the full size -> int32 [..., G].
      largest: int32 [G], the full network.
      low: smallest fraction.
      budgets: most that a subnet may cost.
      trials: how many subnets are asked for; the first 21 do not depend on scores.
    """
    check("trials", trials, integer(1))
    full, dims = float(cost(largest)), len(largest)
    price = lambda fractions: np.asarray(cost(subnets(fractions))) / full  # noqa: E731

    def init() -> MoboState:
        empty = np.full((trials + 1, dims), np.nan), np.full(trials, np.nan)
        return propose(MoboState(*empty, told=0))

    def propose(state: MoboState) -> MoboState:
        number, fractions = state.told, state.fractions.copy()
        rng = np.random.default_rng((seed, number))
        first = bayes.prior(number, dims, low, rng)
        if first is None:
            known = np.flatnonzero(np.isfinite(state.scores))
            history = fractions[known], state.scores[known]
            first = bayes.propose(*history, price, low, rng, options or BayesOptions()).widths
        fractions[number] = first
        return state._replace(fractions=fractions)

    def ask(state: MoboState) -> Subnet:
        return subnets(state.fractions[state.told : state.told + (not done(state))])

    def tell(state: MoboState, scores: np.ndarray) -> MoboState:
        known = state.scores.copy()
        known[state.told] = usable(scores, 1)[0]
        state = state._replace(scores=known, told=state.told + 1)
        return state if done(state) else propose(state)

    def done(state: MoboState) -> bool:
        return state.told == trials

    def found(state: MoboState) -> dict[str, Subnet]:
        asked = subnets(state.fractions[: state.told])
        costs, best = np.asarray(cost(asked)), {}
        for budget in budgets:
            within = np.where(costs <= budget, state.scores[: state.told], np.nan)
            if np.isfinite(within).any():
                best[target_name(budget)] = asked[np.nanargmin(within)]
        return best

    return Searcher(init, ask, tell, done, found)
