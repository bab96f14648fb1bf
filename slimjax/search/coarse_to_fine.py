"""BigNAS's coarse-to-fine selection: a coarse grid of subnets first, then small variations of the best ones."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from slimjax.checks import check_fields, integer, number
from slimjax.errors import BadValue
from slimjax.nn.space import Space, Subnet
from slimjax.search.base import Cost, Searcher, check_reachable, target_name, unordered
from slimjax.search.breeding import Brood, Generations, Genes, best

_RULES = {
    "trials": integer(1),
    "coarse": number(0, 1),
    "blocks": integer(1),
    "probability": number(0, 1),
    "reach": number(0, 1),
    "seed": integer(0),
}


def coarse_to_fine(
    space: Space,
    cost: Cost,
    budgets: Sequence[float],
    trials: int = 200,
    coarse: float = 0.5,
    blocks: int = 2,
    probability: float = 0.5,
    reach: float = 0.1,
    seed: int = 0,
) -> Searcher:
    """Asks for a coarse grid, then, for one budget after another, for variations of the grid's best within it.

    In the grid, the axes are divided by their order into blocks, each with one width for all of its axes; it
    has every combination of a few widths, evenly spaced from the smallest to the largest. A *skeleton* is the grid's
    subnet of the lowest score within a budget. A variation moves all axes of it by one random distance, and then
    each axis with a probability by one of its own; what does not fit the budget, or is known, is drawn anew. Options
    of an unordered choice have no distance: with that probability it takes any other one.

    Paper: Yu et al., BigNAS, ECCV 2020, "Coarse-to-fine Architecture Selection".
    Differs: no resolutions; the paper has no numbers for the grid or the mutations, and these are ours. What is
    dearer than the largest budget is left out of the grid. After some attempts, random axes of a variation are
    narrowed by a legal step until it fits.

    Args:
      trials: subnets asked for at most. Where a skeleton has fewer variations, there are fewer.
      coarse: share of `trials` that the whole grid may have at most. The rest is divided evenly among the budgets.
      blocks: into which the axes are divided. (BigNAS has one width for the whole network in its grid: 1.)
      probability: that an axis is moved on its own.
      reach: how far axes are moved at most, each time: the share of an axis's legal entries; at least by one if
        on its own.

    Raises:
      BadValue: options out of range, no budgets, or one that no subnet meets.
    """
    limits = tuple(dict.fromkeys(float(budget) for budget in budgets))
    if not limits:
        raise BadValue("budgets", "expected one or more costs.")
    for limit in limits:
        check_reachable("budgets", limit, space, cost)
    search = _CoarseToFine(space, cost, limits, trials, coarse, blocks, probability, reach, seed)
    return Searcher(search.init, search.ask, search.tell, search.done, search.found)


@dataclasses.dataclass(frozen=True)
class _CoarseToFine:
    """The five functions of the search; fields are the arguments of `coarse_to_fine`.

    Generation 0 is the grid, generation k the variations for the k-th budget.
    """

    space: Space
    cost: Cost
    budgets: tuple[float, ...]
    trials: int
    coarse: float
    blocks: int
    probability: float
    reach: float
    seed: int

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    def init(self) -> Generations:
        return Generations.none(self.trials, len(self.space)).asking(self.grid)

    def ask(self, state: Generations) -> np.ndarray:
        return state.waiting

    def tell(self, state: Generations, scores: np.ndarray) -> Generations:
        state = state.scored(scores)
        while state.told == state.asked and state.generation < len(self.budgets):
            state = self._with_variations(state._replace(generation=state.generation + 1))
        return state

    def done(self, state: Generations) -> bool:
        return state.told == state.asked

    def found(self, state: Generations) -> dict[str, Subnet]:
        return {
            target_name(budget): subnet
            for budget in self.budgets
            for subnet in self._best_within(budget, state, state.told)
        }

    @functools.cached_property
    def grid(self) -> np.ndarray:
        """int32 [N, G]: coarse subnets, the cheapest first, at most `trials`."""
        room = max(1.0, self.coarse * self.trials)
        blocks = min(self.blocks, len(self.space))
        levels = max(n for n in range(1, int(room) + 1) if n**blocks <= room)
        widths = np.linspace(self.space.min_width, self.space.max_width, levels)
        block = np.arange(len(self.space)) * blocks // len(self.space)
        combined = np.array(list(itertools.product(widths, repeat=blocks)))
        rows = np.concatenate([self.space.layerwise(combined[:, block]), self.space.lowest[None]])
        rows = np.unique(rows, axis=0)
        costs = np.asarray(self.cost(rows), np.float64)
        order = np.argsort(costs, kind="stable")
        return rows[order[costs[order] <= max(self.budgets)]][: self.trials]

    def _best_within(self, budget: float, state: Generations, count: int) -> np.ndarray:
        """int32 [1, G]: of the first `count` subnets, the one of the lowest score; [0, G] if all have failed."""
        subnets = state.subnets[:count]
        fits = np.asarray(self.cost(subnets)) <= budget
        return subnets[best(np.where(fits, state.scores[:count], np.nan), 1)]

    def _with_variations(self, state: Generations) -> Generations:
        """The state that asks for the variations of its generation's budget; for none, if the grid's have failed."""
        budget, rng = self.budgets[state.generation - 1], np.random.default_rng([self.seed, state.generation])
        genes = Genes(self.space, self.cost, 0.0, budget)
        skeleton = genes.encode(self._best_within(budget, state, len(self.grid)))
        brood = Brood(genes, state.subnets[: state.asked], rng)
        if len(skeleton):
            size = (self.trials - len(self.grid)) // len(self.budgets)

            def vary(count: int) -> np.ndarray:
                copies = genes.filled(np.repeat(skeleton, count, axis=0), rng)
                return self._vary(genes, copies, rng)

            brood.grow_to(size, vary)
        return state.asking(brood.rows)

    def _vary(self, genes: Genes, copies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int [N, G]: genes near copies [N, G] of a skeleton."""
        sizes = genes.sizes
        far = self.reach * (sizes - 1)
        together = np.rint(rng.uniform(-1, 1, (len(copies), 1)) * far).astype(int)
        steps = np.maximum(1, np.rint(far).astype(int))
        alone = rng.integers(1, steps + 1, copies.shape) * rng.choice([-1, 1], copies.shape)
        moved = rng.random(copies.shape) < self.probability
        near = np.clip(copies + together + np.where(moved, alone, 0), 0, sizes - 1)
        loose = unordered(self.space)
        if not loose.any():
            return near
        return np.where(loose, np.where(moved, genes.others(copies, rng), copies), near)
