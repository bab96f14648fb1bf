"""Evolutionary search under a budget, on frozen weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from slimjax.checks import check, check_fields, integer, number
from slimjax.errors import BadValue
from slimjax.nn.space import Space, Subnet
from slimjax.search.base import Cost, Searcher, check_reachable, target_name, usable

ATTEMPTS = 20
"""Rounds of drawing anew what does not fit or is known; then as many in which it is repaired."""

_RULES = {
    "population": integer(1),
    "generations": integer(0),
    "parents": number(0, 1),
    "mutation_probability": number(0, 1),
    "mutation_ratio": number(0, 1),
    "seed": integer(0),
}


class EvolutionState(NamedTuple):
    """All subnets so far and their scores.

    Args:
      subnets: int32 [M, G], in the order in which they are asked for, then zeros.
      scores: float64 [M]; NaN: failed or not yet told.
      told: subnets whose scores are known; `asked`: these and the ones that are asked for now.
      generation: 0 is the random one.
    """

    subnets: np.ndarray
    scores: np.ndarray
    told: int
    asked: int
    generation: int


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

    The first generation is random: every group has one of its legal counts, all equally likely. After it, the
    best share of all subnets so far are parents. Mutants copy a parent and draw each group anew with a probability;
    the other children take each group from either of two parents. What does not fit the budget, or is known, is
    drawn anew; after some attempts, random groups of it are narrowed (or widened) by a legal step until it fits. Where
    parents still have nothing new to offer, random subnets take the place; a generation may be smaller if
    those are exhausted too, and an empty one ends the search.

    Paper: Cai et al., Once-for-All, 2020 (the defaults are its released code's), after Real et al., 2019; BigNAS
    and AttentiveNAS search their supernets in this way as well.
    Differs: only channels evolve; repair; no subnet is asked for twice.

    Args:
      generations: rounds of children after the random generation.
      parents: share of `population` that has children.
      mutation_probability: of each group of a mutant.
      mutation_ratio: share of mutants among children.

    Raises:
      BadValue: options out of range, a budget that no subnet meets; (init) nothing fits between the bounds.
    """
    check_reachable("budget", budget, space, cost)
    check("at_least", at_least, number(high=min(budget, float(cost(space.largest)))))
    genes = _Genes(space, cost, at_least, budget)
    search = _Evolution(genes, population, generations, parents, mutation_probability, mutation_ratio, seed)
    return Searcher(search.init, search.ask, search.tell, search.done, search.found)


@dataclasses.dataclass(frozen=True)
class _Evolution:
    """The five functions of the search; fields are the arguments of `evolution`."""

    genes: _Genes
    population: int
    generations: int
    parents: float
    mutation_probability: float
    mutation_ratio: float
    seed: int

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    def init(self) -> EvolutionState:
        size = self.population * (1 + self.generations)
        empty = np.zeros((size, len(self.genes.space)), np.int32), np.full(size, np.nan)
        state = self._with_brood(EvolutionState(*empty, told=0, asked=0, generation=0))
        if not state.asked:
            low, high = self.genes.low, self.genes.high
            raise BadValue(
                "budget", f"found no subnet that costs {low:.10g} to {high:.10g}. Widen the range."
            )
        return state

    def ask(self, state: EvolutionState) -> np.ndarray:
        return state.subnets[state.told : state.asked].copy()

    def tell(self, state: EvolutionState, scores: np.ndarray) -> EvolutionState:
        known = state.scores.copy()
        known[state.told : state.asked] = usable(scores, state.asked - state.told)
        state = state._replace(scores=known, told=state.asked)
        last = state.generation == self.generations
        return state if last else self._with_brood(state._replace(generation=state.generation + 1))

    def done(self, state: EvolutionState) -> bool:
        return state.told == state.asked

    def found(self, state: EvolutionState) -> dict[str, Subnet]:
        return {target_name(self.genes.high): state.subnets[i].copy() for i in _best(state.scores, 1)}

    def _with_brood(self, state: EvolutionState) -> EvolutionState:
        """The state that asks for a generation: mutants and other children of the best, and random subnets."""
        rng, genes = np.random.default_rng([self.seed, state.generation]), self.genes
        brood = _Brood(genes, state.subnets[: state.asked], rng)
        elders = genes.encode(
            state.subnets[_best(state.scores, max(1, round(self.parents * self.population)))]
        )
        if len(elders):
            mutants = round(self.mutation_ratio * self.population)
            brood.grow_to(mutants, lambda n: genes.mutate(elders, n, self.mutation_probability, rng))
            brood.grow_to(self.population, lambda n: genes.cross(elders, n, rng))
        brood.grow_to(self.population, lambda n: genes.draw(n, rng))
        asked, subnets = state.asked + len(brood.rows), state.subnets.copy()
        subnets[state.asked : asked] = np.reshape(brood.rows, (-1, len(genes.space)))
        return state._replace(subnets=subnets, asked=asked)


@dataclasses.dataclass(frozen=True)
class _Genes:
    """Subnets as int [N, G]: positions among the legal counts of each group, ascending."""

    space: Space
    cost: Cost
    low: float
    high: float

    @functools.cached_property
    def counts(self) -> list[np.ndarray]:
        return [self.space.legal(group) for group in self.space.groups]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """int [G]: how many legal counts each group has."""
        return np.array([len(counts) for counts in self.counts])

    def encode(self, subnets: np.ndarray) -> np.ndarray:
        return np.stack([np.searchsorted(c, subnets[:, i]) for i, c in enumerate(self.counts)], -1)

    def decode(self, genes: np.ndarray) -> np.ndarray:
        return np.stack([c[genes[:, i]] for i, c in enumerate(self.counts)], -1).astype(np.int32)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(self.sizes, size=(count, len(self.sizes)))

    def mutate(
        self, elders: np.ndarray, count: int, probability: float, rng: np.random.Generator
    ) -> np.ndarray:
        copies = elders[rng.integers(len(elders), size=count)]
        return np.where(rng.random(copies.shape) < probability, self.draw(count, rng), copies)

    def cross(self, elders: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        one, other = elders[rng.integers(len(elders), size=(2, count))]
        return np.where(rng.random(one.shape) < 0.5, one, other)

    def excess(self, genes: np.ndarray) -> np.ndarray:
        """int [N]: 1 above the budget, -1 below its lower bound, 0 within."""
        costs = np.asarray(self.cost(self.decode(genes)), np.float64)
        return (costs > self.high).astype(int) - (costs < self.low)

    def repair(self, genes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Moves a random group of each misfit by one legal count, again and again; some may stay misfits.

        Something can always move: the narrowest subnet is within the budget, and the largest above the bound.
        """
        each = np.arange(len(genes))
        for _ in range(self.sizes.sum()):
            excess = self.excess(genes)
            if not excess.any():
                break
            moved = genes - excess[:, None]
            movable = (moved >= 0) & (moved < self.sizes)
            chosen = np.where(movable, rng.random(genes.shape), -1.0).argmax(axis=1)
            step = np.zeros_like(genes)
            step[each, chosen] = excess
            genes = genes - step
        return genes


class _Brood:
    """New subnets that fit, none of them known."""

    def __init__(self, genes: _Genes, known: np.ndarray, rng: np.random.Generator) -> None:
        self.rows: list[np.ndarray] = []
        self._genes, self._rng = genes, rng
        self._known = {row.tobytes() for row in known}

    def grow_to(self, size: int, make: Callable[[int], np.ndarray]) -> None:
        """Adds what `make` makes (count -> int [count, G] genes), until there are `size` or nothing new is found."""
        for attempt in range(2 * ATTEMPTS):
            if len(self.rows) >= size:
                return
            genes = make(size - len(self.rows))
            genes = self._genes.repair(genes, self._rng) if attempt >= ATTEMPTS else genes
            self._add(self._genes.decode(genes[self._genes.excess(genes) == 0]))

    def _add(self, subnets: np.ndarray) -> None:
        for row in subnets:
            if row.tobytes() not in self._known:
                self._known.add(row.tobytes())
                self.rows.append(row)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the lowest scores, the first of equal ones first, without failures."""
    order = np.argsort(scores, kind="stable")[:count]
    return order[np.isfinite(scores[order])]
