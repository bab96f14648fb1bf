"""How many channels a sampled subnet keeps: as few as together hold more than a threshold of a layer's importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from slimjax.checks import check, one_of

Noise = Callable[[np.random.Generator, int], np.ndarray]
"""(rng, channels C) -> float64 [C], to be added to the structure parameters alpha of a layer."""


def _none(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.zeros(count)


def _uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    return -rng.random(count)


def _gumbel(rng: np.random.Generator, count: int) -> np.ndarray:
    # A draw may be 0, whose logarithm is none.
    return -np.log(-np.log(np.maximum(rng.random(count), np.finfo(np.float64).tiny)))


NOISES: Mapping[str, Noise] = MappingProxyType({"none": _none, "uniform": _uniform, "gumbel": _gumbel})
"""By name: none; minus U, U uniform in [0, 1); and -log(-log U). Of 64 nearly equal alphas a threshold of .65 keeps two
thirds without noise, half with the second, and one in nine with the third, which gives few channels most of the sum."""


def kept(alphas: np.ndarray, threshold: float) -> int:
    """The smallest number of channels whose shares add up to more than a threshold: at least 1, and at most all.

    The shares are the softmax of the alphas, the largest first. All channels are kept where the sum never passes the
    threshold, as for one of 1.

    Args:
      alphas: [C], with the noise.

    >>> kept(np.log([0.5, 0.3, 0.2]), 0.5)  # half is not more than half
    2
    """
    alphas = np.asarray(alphas, np.float64)
    shares = np.exp(alphas - alphas.max())
    sums = np.cumsum(np.sort(shares / shares.sum())[::-1])
    return min(int(np.searchsorted(sums, threshold, side="right")) + 1, len(sums))


def sample(
    alphas: Mapping[str, np.ndarray], thresholds: Mapping[str, float], noise: str, rng: np.random.Generator
) -> dict[str, int]:
    """How many channels each group keeps: a function of the arguments and of the state of `rng`.

    Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020, algorithm 1.
    Differs: the noise decides how many channels stay, never which. Those of the largest alphas without noise stay (the
    first ones, once the channels are ordered by alpha), so that what a group keeps is nested. The paper names no noise.

    Args:
      alphas: structure parameters [C] by group; noise is drawn in this order.
      thresholds: shares by group, for every group of `alphas`.
      noise: one of `NOISES`.

    Raises:
      BadValue: another noise.
    """
    check("noise", noise, one_of(*NOISES))
    return {name: kept(own + NOISES[noise](rng, len(own)), thresholds[name]) for name, own in alphas.items()}
