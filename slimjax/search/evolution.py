"""Evolutionary search under a budget, on frozen weights."""

from __future__ import annotations

import dataclasses

import numpy as np

from slimjax.checks import check, check_fields, integer, number
from slimjax.errors import BadValue
from slimjax.nn.space import Space, Subnet
from slimjax.search.base import Cost, Searcher, check_reachable, target_name
from slimjax.search.breeding import Brood, Generations, Genes, best

_RULES = {
    "population": integer(1),
    "generations": integer(0),
    "parents": number(0, 1),
    "mutation_probability": number(0, 1),
    "mutation_ratio": number(0, 1),
    "seed": integer(0),
}


def evolution(
    space: Space,
    cost: Cost,
    budget: float,
    population: int = 100,
    generations: int = 500,
    parents: float = 0.25,
    mutation_probability: float = 0.1,
    mutation_ratio: float = 0.5,
    seed: int = 0,
    at_least: float = 0.0,
) -> Searcher:
    """Breeds subnets of `at_least <= cost <= budget` from the best so far.

    The first generation is random: every axis has one of its legal entries, all equally likely. After it, the
    best share of all subnets so far are parents. Mutants copy a parent and draw each axis anew with a probability;
    the other children take each axis from either of two parents. What does not fit the budget, or is known, is
    drawn anew; after some attempts, random axes of it are narrowed (or widened) by a legal step until it fits. Where
    parents still have nothing new to offer, random subnets take the place; a generation may be smaller if
    those are exhausted too, and an empty one ends the search.

    Paper: Cai et al., Once-for-All, 2020 (the defaults are its released code's), after Real et al., 2019;
    AttentiveNAS searches its supernet in this way as well.
    Differs: channels evolve, too; repair; no subnet is asked for twice.

    Args:
      generations: rounds of children after the random generation.
      parents: share of `population` that has children.
      mutation_probability: of each axis of a mutant.
      mutation_ratio: share of mutants among children.

    Raises:
      BadValue: options out of range, a budget that no subnet meets; (init) nothing fits between the bounds.
    """
    check_reachable("budget", budget, space, cost)
    check("at_least", at_least, number(high=min(budget, float(cost(space.largest)))))
    genes = Genes(space, cost, at_least, budget)
    search = _Evolution(genes, population, generations, parents, mutation_probability, mutation_ratio, seed)
    return Searcher(search.init, search.ask, search.tell, search.done, search.found)


@dataclasses.dataclass(frozen=True)
class _Evolution:
    """The five functions of the search; fields are the arguments of `evolution`."""

    genes: Genes
    population: int
    generations: int
    parents: float
    mutation_probability: float
    mutation_ratio: float
    seed: int

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    def init(self) -> Generations:
        size = self.population * (1 + self.generations)
        state = self._with_brood(Generations.none(size, len(self.genes.space)))
        if not state.asked:
            low, high = self.genes.low, self.genes.high
            raise BadValue(
                "budget", f"found no subnet that costs {low:.10g} to {high:.10g}. Widen the range."
            )
        return state

    def ask(self, state: Generations) -> np.ndarray:
        return state.waiting

    def tell(self, state: Generations, scores: np.ndarray) -> Generations:
        state = state.scored(scores)
        last = state.generation == self.generations
        return state if last else self._with_brood(state._replace(generation=state.generation + 1))

    def done(self, state: Generations) -> bool:
        return state.told == state.asked

    def found(self, state: Generations) -> dict[str, Subnet]:
        return {target_name(self.genes.high): state.subnets[i].copy() for i in best(state.scores, 1)}

    def _with_brood(self, state: Generations) -> Generations:
        """The state that asks for a generation: mutants and other children of the best, and random subnets."""
        rng, genes = np.random.default_rng([self.seed, state.generation]), self.genes
        brood = Brood(genes, state.subnets[: state.asked], rng)
        elders = genes.encode(
            state.subnets[best(state.scores, max(1, round(self.parents * self.population)))]
        )
        if len(elders):
            mutants = round(self.mutation_ratio * self.population)
            brood.grow_to(mutants, lambda n: genes.mutate(elders, n, self.mutation_probability, rng))
            brood.grow_to(self.population, lambda n: genes.cross(elders, n, rng))
        brood.grow_to(self.population, lambda n: genes.draw(n, rng))
        return state.asking(brood.rows)
