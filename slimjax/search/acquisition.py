"""The augmented Tchebyshev scalarisation of two objectives over a box, and its minimiser.

All starts advance together, so that covariances with the data are worked out for all in one batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from slimjax.search.gp import GP

AUGMENTATION = 1e-6

CostRatio = Callable[[np.ndarray], np.ndarray]
"""Widths [..., d] to true costs [...] over the full network's."""


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
    sides, which many a step lies within.
    """

    cost: CostRatio
    shift: float
    scale: float
    low: np.ndarray
    reach: float = 0.05

    def values(self, points: np.ndarray) -> np.ndarray:
        return (self.cost(points) - self.shift) / self.scale

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = self.reach * np.eye(points.shape[1])
        above = np.minimum(points[:, None] + steps, 1.0)
        below = np.maximum(points[:, None] - steps, self.low)
        distance = np.einsum("mii->mi", above - below)
        rise = self.values(above) - self.values(below)
        return self.values(points), rise / np.where(distance > 0, distance, 1.0)


@dataclasses.dataclass(frozen=True)
class Tchebyshev:
    """T = max(a, c) + 1e-6 (a + c), with a = (1 - lam)(loss - baseline) and c = lam (cost - baseline)."""

    loss: Objective
    cost: Objective
    baseline: float

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

    def minimise(self, lam: float, starts: np.ndarray, low: np.ndarray, steps: int) -> np.ndarray:
        """The best point [d] that descents from `starts` [m, d] reach in the box [low, 1]^d."""
        points, reach = starts, np.full(len(starts), np.nan)
        values, slopes = self.pieces(points, lam)
        for _ in range(steps):
            reach = np.where(np.isnan(reach), _first_reach(slopes), reach)
            moved = _prox_linear(points, values, slopes, reach, low)
            expected = values.max(axis=0) - _linear(values, slopes, moved - points).max(axis=0)
            if not (expected > 1e-5).any():
                break
            new_values, new_slopes = self.pieces(moved, lam)
            gained = values.max(axis=0) - new_values.max(axis=0)
            better = gained > 0
            reach = reach * np.where(gained > 0.5 * expected, 2.0, np.where(better, 0.7, 0.2))
            points = np.where(better[:, None], moved, points)
            values = np.where(better, new_values, values)
            slopes = np.where(better[:, None], new_slopes, slopes)
        return points[values.max(axis=0).argmin()]


def _first_reach(slopes: np.ndarray) -> np.ndarray:
    """[m]: the step size for which a step along the steeper gradient is .3 long."""
    return 0.3 / np.maximum(np.linalg.norm(slopes, axis=2).max(axis=0), 1e-9)


def _prox_linear(
    points: np.ndarray, values: np.ndarray, slopes: np.ndarray, reach: np.ndarray, low: np.ndarray
) -> np.ndarray:
    """Minimises the larger of both linearisations + |p|^2 / (2 reach) over the box, nearly.

    Without the box, p = -reach * (s g0 + (1 - s) g1) with s in closed form: where the pieces cross, it goes along
    the crease instead of zigzagging over it. Coordinates that would leave the box are then held, twice.
    """
    free = np.ones_like(points)
    for _ in range(3):
        first, second = slopes * free
        difference = first - second
        curvature = reach * np.einsum("md,md->m", difference, difference)
        tilt = values[0] - values[1] - reach * np.einsum("md,md->m", second, difference)
        share = np.clip(tilt / np.maximum(curvature, 1e-12), 0, 1)[:, None]
        step = -reach[:, None] * (share * first + (1 - share) * second)
        outward = ((points <= low) & (step < 0)) | ((points >= 1) & (step > 0))
        free = np.where(outward, 0.0, free)
    return np.clip(points + step * free, low, 1)


def _linear(values: np.ndarray, slopes: np.ndarray, step: np.ndarray) -> np.ndarray:
    """[2, m]: both linearisations after a step [m, d]."""
    return values + np.einsum("kmd,md->km", slopes, step)
