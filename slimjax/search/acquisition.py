"""The augmented Tchebyshev scalarisation of two objectives over a box, and its minimiser.

All descents advance together, so that covariances with the data are worked out for all in one batch.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from scipy import optimize

from slimjax.search.encoding import Encoding, exchanged
from slimjax.search.gp import GP
from slimjax.search.segment import CostRatio

AUGMENTATION = 1e-6

EXCHANGED = 2
"""Of the points that descents end at, the best so many have their options exchanged."""

EXCHANGE_ROUNDS = 10
"""At one weight, at most."""

DESCENT_STEPS = 15
"""Of all descents at one weight, at most. BoTorch has 200, for fronts that are no better (see docs/search.md)."""


class Objective(Protocol):
    """One standardised objective, of points [m, d]."""

    def values(self, points: np.ndarray) -> np.ndarray:
        """float [m]"""
        ...

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float [m], and gradients [m, d]."""
        ...


@dataclasses.dataclass(frozen=True)
class Bound:
    """A confidence bound of a Gaussian process: mean + weight * standard deviation."""

    process: GP
    weight: float

    def values(self, points: np.ndarray) -> np.ndarray:
        mean, deviation = self.process.posterior(points)
        return mean + self.weight * deviation

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, deviation, mean_slope, deviation_slope = self.process.posterior_slopes(points)
        return mean + self.weight * deviation, mean_slope + self.weight * deviation_slope


@dataclasses.dataclass(frozen=True)
class TrueCost:
    """The cost itself, standardised as (cost - shift) / scale.

    It rises in steps, because channels are whole: gradients are differences over a distance of `reach` to both
    sides, which many a step lies within. Along choices, which come after the groups, it has none.
    """

    cost: CostRatio
    shift: float
    scale: float
    low: np.ndarray
    reach: float = 0.05
    groups: int | None = None

    def values(self, points: np.ndarray) -> np.ndarray:
        return (self.cost(points) - self.shift) / self.scale

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = self.reach * np.eye(points.shape[1])[: self.groups]
        above = np.minimum(points[:, None] + steps, 1.0)
        below = np.maximum(points[:, None] - steps, self.low)
        distance = np.einsum("mii->mi", (above - below)[..., : self.groups])
        rise, slopes = self.values(above) - self.values(below), np.zeros_like(points)
        slopes[:, : self.groups] = rise / np.where(distance > 0, distance, 1.0)
        return self.values(points), slopes


@dataclasses.dataclass(frozen=True)
class Tchebyshev:
    """T = max(a, c) + 1e-6 (a + c), with a = (1 - lam)(loss - baseline) and c = lam (cost - baseline).

    Args:
      encoding: of the points, where some of their axes are choices.
    """

    loss: Objective
    cost: Objective
    baseline: float
    encoding: Encoding | None = None

    def scalar(self, loss: np.ndarray, cost: np.ndarray, lam: float) -> np.ndarray:
        """T [m] from the objectives' values [m]."""
        return self._pieces(loss, cost, lam).max(axis=0)

    def _pieces(self, loss: np.ndarray, cost: np.ndarray, lam: float) -> np.ndarray:
        """The two smooth functions, [2, m], whose larger is T."""
        pieces = np.stack([(1 - lam) * (loss - self.baseline), lam * (cost - self.baseline)])
        return pieces + AUGMENTATION * pieces.sum(axis=0)

    def pieces(self, points: np.ndarray, lam: float) -> tuple[np.ndarray, np.ndarray]:
        """The two smooth functions at points [m, d]: values [2, m], gradients [2, m, d]."""
        loss, loss_slope = self.loss.slopes(points)
        cost, cost_slope = self.cost.slopes(points)
        slopes = np.stack([(1 - lam) * loss_slope, lam * cost_slope])
        return self._pieces(loss, cost, lam), slopes + AUGMENTATION * slopes.sum(axis=0)

    def minimise(self, lam: float, starts: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The best point [d] of those that descents from `starts` [m, d] end at, in the box [low, 1]^d.

        Descents move groups only. Where there are choices, their options are exchanged after that.
        """
        points = self._descended(lam, starts, low)
        values = self.pieces(points, lam)[0].max(axis=0)
        if self.encoding is None:
            return points[values.argmin()]

        def value(some: np.ndarray) -> np.ndarray:
            return self.scalar(self.loss.values(some), self.cost.values(some), lam)

        points = exchanged(value, points[values.argsort()[:EXCHANGED]], self.encoding, EXCHANGE_ROUNDS)
        return points[value(points).argmin()]

    def _descended(self, lam: float, starts: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The points [m, d] that descents end at.

        L-BFGS-B minimises the sum over all starts, as BoTorch does. It knows nothing of the crease where the two
        pieces cross, and a descent may end there a little above the minimum. That is of use: see docs/search.md.
        """
        each = np.arange(len(starts))

        def total(flat: np.ndarray) -> tuple[float, np.ndarray]:
            values, slopes = self.pieces(flat.reshape(starts.shape), lam)
            larger = values.argmax(axis=0)
            return float(values[larger, each].sum()), slopes[larger, each].ravel()

        bounds = optimize.Bounds(np.tile(low, len(starts)), np.ones(starts.size))
        options = {"maxiter": DESCENT_STEPS}
        found = optimize.minimize(
            total, starts.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        return np.clip(found.x.reshape(starts.shape), low, 1.0)
