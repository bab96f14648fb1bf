"""What searches that breed subnets share: subnets as positions among legal counts, and generations of new ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from slimjax.nn.space import Space
from slimjax.search.base import Cost, unordered, usable

ATTEMPTS = 20
"""Rounds of drawing anew what does not fit or is known; then as many in which it is repaired."""


class Generations(NamedTuple):
    """All subnets so far and their scores.

    Args:
      subnets: int32 [M, G], in the order in which they are asked for, then zeros.
      scores: float64 [M]; NaN: failed or not yet told.
      told: subnets whose scores are known; `asked`: these and the ones that are asked for now.
      generation: the number of the newest, from 0.
    """

    subnets: np.ndarray
    scores: np.ndarray
    told: int
    asked: int
    generation: int

    @classmethod
    def none(cls, size: int, axes: int) -> Generations:
        """Room for `size` subnets of a space with so many axes."""
        return cls(np.zeros((size, axes), np.int32), np.full(size, np.nan), told=0, asked=0, generation=0)

    @property
    def waiting(self) -> np.ndarray:
        """int32 [N, G]: what is asked for now."""
        return self.subnets[self.told : self.asked].copy()

    def scored(self, scores: np.ndarray) -> Generations:
        """With the scores of what was waiting. Raises: ValueError: another number of scores."""
        known = self.scores.copy()
        known[self.told : self.asked] = usable(scores, self.asked - self.told)
        return self._replace(scores=known, told=self.asked)

    def asking(self, rows: list[np.ndarray] | np.ndarray) -> Generations:
        """With these subnets waiting as well."""
        asked, subnets = self.asked + len(rows), self.subnets.copy()
        subnets[self.asked : asked] = np.reshape(rows, (-1, subnets.shape[1]))
        return self._replace(subnets=subnets, asked=asked)


@dataclasses.dataclass(frozen=True)
class Genes:
    """Subnets as int [N, G]: positions among the legal entries of each axis, ascending."""

    space: Space
    cost: Cost
    low: float
    high: float

    @functools.cached_property
    def counts(self) -> list[np.ndarray]:
        return [self.space.legal(axis) for axis in self.space.axes]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """int [G]: how many legal entries each axis has."""
        return np.array([len(counts) for counts in self.counts])

    def encode(self, subnets: np.ndarray) -> np.ndarray:
        return np.stack([np.searchsorted(c, subnets[:, i]) for i, c in enumerate(self.counts)], -1)

    def decode(self, genes: np.ndarray) -> np.ndarray:
        subnets = np.stack([c[genes[:, i]] for i, c in enumerate(self.counts)], -1).astype(np.int32)
        return self.space.canonical(subnets)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(self.sizes, size=(count, len(self.sizes)))

    def exists(self, genes: np.ndarray) -> np.ndarray:
        """bool [N, G]: the axes that there are."""
        return self.space.exists(self.decode(genes))

    def filled(self, genes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same subnets, with random entries of axes that they lack: a child whose options bring one has that."""
        return np.where(self.exists(genes), genes, self.draw(len(genes), rng)) if self.space.under else genes

    def mutate(
        self, elders: np.ndarray, count: int, probability: float, rng: np.random.Generator
    ) -> np.ndarray:
        copies = self.filled(elders[rng.integers(len(elders), size=count)], rng)
        return np.where(rng.random(copies.shape) < probability, self.draw(count, rng), copies)

    def cross(self, elders: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        pairs = elders[rng.integers(len(elders), size=(2, count))]
        one, other = (self.filled(genes, rng) for genes in pairs)
        return np.where(rng.random(one.shape) < 0.5, one, other)

    def excess(self, genes: np.ndarray) -> np.ndarray:
        """int [N]: 1 above the budget, -1 below its lower bound, 0 within."""
        costs = np.asarray(self.cost(self.decode(genes)), np.float64)
        return (costs > self.high).astype(int) - (costs < self.low)

    def repair(self, genes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Moves a random axis that each misfit has by one legal entry, again and again; some may stay misfits.

        Something can always move: the narrowest subnet is within the budget, and the largest above the bound. An
        unordered choice takes any other option. Where that, or a later option, leads away, another move follows.
        """
        each, loose = np.arange(len(genes)), unordered(self.space) & (self.sizes > 1)
        for _ in range(self.sizes.sum()):
            excess = self.excess(genes)
            if not excess.any():
                break
            moved = genes - excess[:, None]
            movable = ((moved >= 0) & (moved < self.sizes) | loose) & self.exists(genes)
            chosen = np.where(movable, rng.random(genes.shape), -1.0).argmax(axis=1)
            if loose.any():
                moved = np.where(loose, self.others(genes, rng), moved)
            moves = movable[each, chosen] & (excess != 0)
            genes = genes.copy()
            genes[each[moves], chosen[moves]] = moved[each[moves], chosen[moves]]
        return genes

    def others(self, genes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int [N, G]: a random other entry of each axis that has one."""
        return (genes + rng.integers(1, np.maximum(2, self.sizes), genes.shape)) % self.sizes


class Brood:
    """New subnets that fit, none of them known."""

    def __init__(self, genes: Genes, known: np.ndarray, rng: np.random.Generator) -> None:
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


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the lowest scores, the first of equal ones first, without failures."""
    order = np.argsort(scores, kind="stable")[:count]
    return order[np.isfinite(scores[order])]
