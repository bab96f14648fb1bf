"""`slimjax bench search`: how long one proposal of the Bayesian optimiser takes, and how often it hits its target."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from typing import Any

import numpy as np

from slimjax.checks import check, integer
from slimjax.search import bayes
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.segment import random_widths

LOW = 0.42
"""The authors' smallest width."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """A made-up network: a chain of 3 x 3 convolutions, each output a channel group.

    Args:
      channels: int [d], full sizes.
      area: float [d], pixels that each convolution is applied at.
      gain: float [d], what the loss owes to each group.
    """

    channels: np.ndarray
    area: np.ndarray
    gain: np.ndarray

    @classmethod
    def drawn(cls, dims: int, rng: np.random.Generator) -> Chain:
        """Sizes of 16 to 64; every third group is tied to the one before it, as stages are by their residuals."""
        channels = np.sort(rng.integers(16, 65, dims))
        area = 4.0 ** -np.round(2 * np.arange(dims) / dims)
        return cls(channels, area, rng.uniform(0.2, 1.0, dims))

    def counts(self, widths: np.ndarray) -> np.ndarray:
        """Whole channels [..., d] of widths [..., d]."""
        return np.maximum(1, np.floor(widths * self.channels + 1e-9))

    def cost(self, widths: np.ndarray) -> np.ndarray:
        """MACs [...] over the full network's. Channels never fall from one third group to the next: repaired."""
        return self._macs(self.counts(np.asarray(widths))) / self._macs(self.channels.astype(np.float64))

    def _macs(self, counts: np.ndarray) -> np.ndarray:
        tied = counts.copy()
        tied[..., ::3] = np.maximum.accumulate(counts[..., ::3], axis=-1)
        inputs = np.concatenate([np.full((*tied.shape[:-1], 1), 3.0), tied[..., :-1]], axis=-1)
        return (inputs * tied * self.area).sum(axis=-1)

    def loss(self, widths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Smooth in the channels, falling, with neighbours that make up for each other, and a little noise."""
        shares = self.counts(np.asarray(widths)) / self.channels
        alone = (self.gain / shares).sum(axis=-1) / self.gain.sum()
        pairs = (1 / (shares[..., :-1] + shares[..., 1:])).mean(axis=-1)
        return 1.0 + 0.5 * alone + pairs + 0.01 * rng.normal(size=alone.shape)


def visited(chain: Chain, count: int, rng: np.random.Generator) -> np.ndarray:
    """Widths [count, d] as the optimiser visits them: of uniform costs."""
    dims = len(chain.channels)
    low = np.full(dims, LOW)
    first = [widths for i in range(count) if (widths := bayes.prior(i, dims, LOW, rng)) is not None]
    targets = rng.uniform(float(chain.cost(low)), 1.0, count - len(first))
    return np.array(first + [random_widths(chain.cost, target, low, rng) for target in targets])


def run(history: int, dims: int, repeats: int, warm: bool = False, seed: int = 0) -> dict[str, Any]:
    """Medians over `repeats` proposals, each for a history and a network of its own.

    Args:
      warm: begin each with the hyper-parameters of a fit to the same history without its last two points.
    """
    for name, (value, least) in {
        "history": (history, 3),
        "dims": (dims, 2),
        "repeats": (repeats, 1),
        "seed": (seed, 0),
    }.items():
        check(name, value, integer(least))
    proposals = [_proposal(history, dims, warm, np.random.default_rng([seed, i])) for i in range(repeats)]
    return {
        "history": history,
        "dims": dims,
        "proposals": repeats,
        "warm": warm,
        "proposal_seconds": statistics.median(p.seconds for p in proposals),
        "fit_seconds": statistics.median(p.fit_seconds for p in proposals),
        "slowest_seconds": max(p.seconds for p in proposals),
        "iterations": statistics.median(p.iterations for p in proposals),
        "hit_rate": sum(p.hit for p in proposals) / repeats,
        "how": dict(collections.Counter(p.how for p in proposals)),
    }


def _proposal(history: int, dims: int, warm: bool, rng: np.random.Generator) -> bayes.Proposal:
    chain = Chain.drawn(dims, rng)
    widths = visited(chain, history, rng)
    losses = chain.loss(widths, rng)
    start = None
    if warm:
        start = bayes.propose(widths[:-2], losses[:-2], chain.cost, LOW, rng, BayesOptions()).warm
    return bayes.propose(widths, losses, chain.cost, LOW, rng, BayesOptions(), start)
