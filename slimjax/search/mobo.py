"""Joslim's Bayesian optimiser as a search on frozen weights: the TwoStage baseline of its authors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from slimjax.checks import check, integer
from slimjax.nn.space import Subnet
from slimjax.search import bayes
from slimjax.search.base import Cost, Searcher, target_name, usable
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.encoding import Encoding


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
    encoding: Encoding | None = None,
) -> Searcher:
    """Asks for one subnet at a time, as `bayes` proposes it; finds the best within each budget.

    Paper: Joslim, section 4, TwoStage.

    Args:
      subnets: fractions [..., G] of the full size, and places in the range of options -> int32 [..., G].
      largest: int32 [G], the full network.
      low: smallest fraction.
      budgets: most that a subnet may cost.
      trials: how many subnets are asked for; the first 21 do not depend on scores.
      encoding: of a space with choices (`vectors.WidthVectors.encoding`).
    """
    check("trials", trials, integer(1))
    full, dims = float(cost(largest)), len(largest)
    options = options or BayesOptions()
    search = _Mobo(subnets, cost, full, dims, low, tuple(budgets), trials, options, seed, encoding)
    return Searcher(search.init, search.ask, search.tell, search.done, search.found)


@dataclasses.dataclass(frozen=True)
class _Mobo:
    """The five functions of the search; fields are the arguments of `mobo`, the full network's cost and its axes."""

    subnets: Callable[[np.ndarray], Subnet]
    cost: Cost
    full: float
    dims: int
    low: float
    budgets: tuple[float, ...]
    trials: int
    options: BayesOptions
    seed: int
    encoding: Encoding | None

    def init(self) -> MoboState:
        empty = np.full((self.trials + 1, self.dims), np.nan), np.full(self.trials, np.nan)
        return self._with_proposal(MoboState(*empty, told=0))

    def ask(self, state: MoboState) -> Subnet:
        return self.subnets(state.fractions[state.told : state.told + (not self.done(state))])

    def tell(self, state: MoboState, scores: np.ndarray) -> MoboState:
        known = state.scores.copy()
        known[state.told] = usable(scores, 1)[0]
        state = state._replace(scores=known, told=state.told + 1)
        return state if self.done(state) else self._with_proposal(state)

    def done(self, state: MoboState) -> bool:
        return state.told == self.trials

    def found(self, state: MoboState) -> dict[str, Subnet]:
        asked = self.subnets(state.fractions[: state.told])
        costs, best = np.asarray(self.cost(asked)), {}
        for budget in self.budgets:
            within = np.where(costs <= budget, state.scores[: state.told], np.nan)
            if np.isfinite(within).any():
                best[target_name(budget)] = asked[np.nanargmin(within)]
        return best

    def _with_proposal(self, state: MoboState) -> MoboState:
        """The state with the fractions of the next trial."""
        rng = np.random.default_rng((self.seed, state.told))
        fractions = state.fractions.copy()
        proposed = bayes.prior(state.told, self.dims, self.low, rng, self.encoding)
        if proposed is None:
            known = np.flatnonzero(np.isfinite(state.scores))
            history = fractions[known], state.scores[known]
            found = bayes.propose(*history, self._ratio, self.low, rng, self.options, encoding=self.encoding)
            proposed = found.widths
        fractions[state.told] = proposed
        return state._replace(fractions=fractions)

    def _ratio(self, fractions: np.ndarray) -> np.ndarray:
        """Costs [...] over the full network's."""
        return np.asarray(self.cost(self.subnets(fractions))) / self.full
