"""How a Gaussian process sees points of a space with choices, and the exchange that moves their options.

A point has a fraction for every axis, groups first. Along a choice the fraction is cut into equal shares, one for each
option (`Space.uniform`): between two fractions lie options that have nothing to do with either.

Paper: Garrido-Merchan and Hernandez-Lobato, Dealing with categorical and integer-valued variables in Bayesian
Optimization with Gaussian processes, Neurocomputing 2020, section 3: the covariance is constant within an option.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from slimjax.search.kernels import Kernel, Pull


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What a kernel sees of a point: its subnet, but for the rounding of channels.

    Fractions of groups are seen as they are; of an ordered choice, the middle of its option's share; of another one, a
    column for each option, so that any two options are a distance of 1 apart. An axis that the subnet does not have is
    seen at its lowest, so two points that differ in nothing else look the same.

    Differs: channels are not rounded, or their covariance would have no slope to descend by; axes that do not
    exist are the space's.

    Args:
      groups: how many; the first entries of a point.
      sizes: options of each choice; the last entries.
      ordered: of each choice, whether neighbours are alike.
      low: the smallest fraction.
      exists: int [..., d], which has positions of options in its last entries -> bool [..., d]: the axes there are.
    """

    groups: int
    sizes: tuple[int, ...]
    ordered: tuple[bool, ...]
    low: float
    exists: Callable[[np.ndarray], np.ndarray]

    @property
    def dims(self) -> int:
        """Entries of a point."""
        return self.groups + len(self.sizes)

    @functools.cached_property
    def owners(self) -> np.ndarray:
        """int [e]: the axis that each column of an encoded point is of."""
        return np.concatenate([np.arange(self.groups), self.groups + self._snapped, self.groups + self._hot])

    @functools.cached_property
    def _snapped(self) -> np.ndarray:
        """The ordered choices."""
        return np.flatnonzero(self.ordered)

    @functools.cached_property
    def _hot(self) -> np.ndarray:
        """The other choices, each as often as it has options."""
        return np.repeat(np.arange(len(self.sizes)), np.where(self.ordered, 0, self.sizes))

    @functools.cached_property
    def _options(self) -> np.ndarray:
        """Positions of the options that `_hot` repeats its choices for."""
        return np.concatenate([np.zeros(0, int), *(np.arange(n) for n in self._unordered_sizes)])

    @property
    def _unordered_sizes(self) -> list[int]:
        return [size for size, ordered in zip(self.sizes, self.ordered, strict=True) if not ordered]

    def positions(self, points: np.ndarray) -> np.ndarray:
        """int [..., C]: the options that points [..., d] take."""
        span = (points[..., self.groups :] - self.low) / (1 - self.low) if self.low < 1 else 1.0
        sizes = np.broadcast_to(self.sizes, (*points.shape[:-1], len(self.sizes)))
        return np.clip(np.asarray(span * sizes, np.int64), 0, sizes - 1)

    def middles(self, positions: np.ndarray) -> np.ndarray:
        """float [..., C]: the fractions in the middle of options' shares."""
        return self.low + (positions + 0.5) / self.sizes * (1 - self.low)

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """The same subnets, with choices in the middle of their options' shares: rounding does not move them."""
        fractions = self.middles(self.positions(points))
        return np.concatenate([points[..., : self.groups], fractions], axis=-1)

    def existing(self, points: np.ndarray) -> np.ndarray:
        """bool [..., d]: the axes that the subnets of points [..., d] have."""
        entries = np.zeros(points.shape, np.int64)
        entries[..., self.groups :] = self.positions(points)
        return self.exists(entries)

    def encode(self, points: np.ndarray) -> np.ndarray:
        """float [..., e]: what a kernel sees of points [..., d]."""
        exists = self.existing(points)
        channels = np.where(exists[..., : self.groups], points[..., : self.groups], self.low)
        positions = np.where(exists[..., self.groups :], self.positions(points), 0)
        hot = (positions[..., self._hot] == self._options) / math.sqrt(2)
        return np.concatenate([channels, self.middles(positions)[..., self._snapped], hot], axis=-1)

    def mixed(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Points [..., d] whose unordered choices take random options, each on its own."""
        positions = rng.integers(self.sizes, size=(*points.shape[:-1], len(self.sizes)))
        points = points.copy()
        points[..., self.groups :] = np.where(
            self.ordered, points[..., self.groups :], self.middles(positions)
        )
        return points

    def others(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [m, d] with one choice at another option, for every choice that they have and every such option.

        Returns: those [k, d], and int [k]: the points that they are made of, ascending.
        """
        choice = np.repeat(np.arange(len(self.sizes)), np.array(self.sizes) - 1)
        shift = np.concatenate([np.arange(1, size) for size in self.sizes])
        row, column = np.nonzero(self.existing(points)[:, self.groups :][:, choice])
        choice, shift, others = choice[column], shift[column], points[row]
        positions = (self.positions(others)[np.arange(len(row)), choice] + shift) % np.array(self.sizes)[
            choice
        ]
        fractions = self.low + (positions + 0.5) / np.array(self.sizes)[choice] * (1 - self.low)
        others[np.arange(len(row)), self.groups + choice] = fractions
        return others, row


class Encoded:
    """A kernel (`kernels.Kernel`) of encoded points; its gradients along choices are zero.

    A kernel with a lengthscale for each dimension has one for each axis here: an option's columns share it.

    It remembers how the last data look: the same are asked for again and again.
    """

    def __init__(self, kernel: Kernel, encoding: Encoding) -> None:
        self.kernel, self.encoding = kernel, encoding
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def scales(self, dims: int) -> int:
        return self.kernel.scales(dims)

    def variance(self, dims: int) -> float:
        return self.kernel.variance(len(self.encoding.owners))

    def gram(self, x: np.ndarray, lengthscale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.kernel.gram(self._seen(x), self._spread(lengthscale))

    def gradient(self, x: np.ndarray, lengthscale: np.ndarray, weights: np.ndarray) -> np.ndarray:
        by_column = self.kernel.gradient(self._seen(x), self._spread(lengthscale), weights)
        if len(by_column) == 1:
            return by_column
        return np.bincount(self.encoding.owners, by_column, minlength=self.encoding.dims)

    def cross(self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray) -> np.ndarray:
        return self.kernel.cross(self.encoding.encode(points), self._seen(x), self._spread(lengthscale))

    def cross_slopes(
        self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray
    ) -> tuple[np.ndarray, Pull]:
        encoded, scales = self.encoding.encode(points), self._spread(lengthscale)
        covariance, pull = self.kernel.cross_slopes(encoded, self._seen(x), scales)
        groups = self.encoding.groups
        exists = self.encoding.existing(points)[:, :groups, None]

        def pulled(weights: np.ndarray) -> np.ndarray:
            slopes = np.zeros((*points.shape, weights.shape[-1]))
            slopes[:, :groups] = pull(weights)[:, :groups] * exists
            return slopes

        return covariance, pulled

    def _seen(self, x: np.ndarray) -> np.ndarray:
        if self._last is None or self._last[0] is not x:
            self._last = x, self.encoding.encode(x)
        return self._last[1]

    def _spread(self, lengthscale: np.ndarray) -> np.ndarray:
        return lengthscale if len(lengthscale) == 1 else lengthscale[self.encoding.owners]


def seen(kernel: Kernel, encoding: Encoding | None) -> Kernel:
    """The kernel of encoded points, or itself where there is no encoding."""
    return kernel if encoding is None else Encoded(kernel, encoding)


def exchanged(
    value: Callable[[np.ndarray], np.ndarray], points: np.ndarray, encoding: Encoding, rounds: int
) -> np.ndarray:
    """Points [m, d] after coordinate exchange over options: each takes, round by round, the best change of one choice.

    A round tries all other options of all choices at once; it is the last one for points that nothing improves.

    Args:
      value: points [n, d] -> [n], the lower, the better.
      rounds: at most.
    """
    points = encoding.snapped(points)
    values, moving = value(points), np.arange(len(points))
    for _ in range(rounds):
        others, made_of = encoding.others(points[moving])
        if not len(others):
            break
        found = np.full((len(moving), len(others)), np.inf)
        found[made_of, np.arange(len(others))] = value(others)
        best = found.argmin(axis=1)
        lowest = found.min(axis=1)
        better = np.flatnonzero(lowest < values[moving])
        moving, rows = moving[better], others[best[better]]
        points[moving], values[moving] = rows, lowest[better]
    return points
