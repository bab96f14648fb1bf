"""Matern-5/2 covariances over widths [n, d], at a prior variance of one (per summand).

A covariance of n points is worked out in blocks of rows of its lower triangle that fit a core's cache, on two
threads: NumPy lets go of the interpreter in each operation. With r the distance over the lengthscale and
z = sqrt(5) r it is (1 + z + z^2 / 3) exp(-z).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

ROOT5 = math.sqrt(5)
BLOCK = 32_768
"""Entries of a block."""

THREADS = 2

Pull = Callable[[np.ndarray], np.ndarray]
"""Weights [m, n, k] to the gradients [m, d, k] of the sums over n of weights * covariances, by the m points."""


class Kernel(Protocol):
    """What `gp` asks of a covariance. Lengthscales are float [scales(d)]."""

    def scales(self, dims: int) -> int:
        """How many lengthscales it has."""
        ...

    def variance(self, dims: int) -> float:
        """Covariance of a point with itself."""
        ...

    def gram(self, x: np.ndarray, lengthscale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Covariances [n, n] and the slopes that `gradient` takes: lower triangles, zeros above blocks of them."""
        ...

    def gradient(self, x: np.ndarray, lengthscale: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """By the log lengthscales [scales]: sum over all pairs of w * covariance, from w * slopes.

        `weights` [n, n] is zero on and above the diagonal; the sum counts each pair twice.
        """
        ...

    def cross(self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray) -> np.ndarray:
        """Covariances [m, n] of points [m, d] with x [n, d]."""
        ...

    def cross_slopes(
        self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray
    ) -> tuple[np.ndarray, Pull]:
        """The same, with a function for gradients by the points."""
        ...


@dataclasses.dataclass(frozen=True)
class Matern:
    """Of the Euclidean distance. One lengthscale for all dimensions, or with `ard` one for each."""

    ard: bool = False

    def scales(self, dims: int) -> int:
        return dims if self.ard else 1

    def variance(self, dims: int) -> float:
        return 1.0

    def gram(self, x: np.ndarray, lengthscale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scaled = x / lengthscale
        covariance, slopes = scaled @ scaled.T, np.zeros((len(x), len(x)))
        squares = np.einsum("ij,ij->i", scaled, scaled)

        def fill(rows: slice, columns: slice) -> None:
            block = covariance[rows, columns]
            covariance[rows, columns], slopes[rows, columns] = _matern(squares[rows], squares[columns], block)

        over_triangle(fill, len(x))
        return covariance, slopes

    def gradient(self, x: np.ndarray, lengthscale: np.ndarray, weights: np.ndarray) -> np.ndarray:
        x = x - x.mean(axis=0)
        ends = weights.sum(axis=0) + weights.sum(axis=1)
        squares = (ends @ x**2 - 2 * np.einsum("id,id->d", x, weights @ x)) / lengthscale**2
        return 2 * squares if self.ard else 2 * squares.sum(keepdims=True)

    def cross(self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray) -> np.ndarray:
        return self._cross(points / lengthscale, x / lengthscale)[0]

    def cross_slopes(
        self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray
    ) -> tuple[np.ndarray, Pull]:
        covariance, slopes = self._cross(points / lengthscale, x / lengthscale)

        def pull(weights: np.ndarray) -> np.ndarray:
            weights = weights * slopes[..., None]
            to_x = x.T @ weights - points[..., None] * weights.sum(axis=1, keepdims=True)
            return to_x / np.broadcast_to(lengthscale, x.shape[1:])[:, None] ** 2

        return covariance, pull

    @staticmethod
    def _cross(points: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = np.empty((2, len(points), len(x)))
        squares, products = np.einsum("ij,ij->i", x, x), points @ x.T

        def fill(rows: slice) -> None:
            own = np.einsum("ij,ij->i", points[rows], points[rows])
            result[:, rows] = _matern(own, squares, products[rows])

        _over_rows(fill, len(points), len(x))
        return result[0], result[1]


@dataclasses.dataclass(frozen=True)
class AdditiveMatern:
    """A sum over dimensions of one-dimensional kernels, which share their lengthscale and their variance."""

    def scales(self, dims: int) -> int:
        return 1

    def variance(self, dims: int) -> float:
        return float(dims)

    def gram(self, x: np.ndarray, lengthscale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance, slopes = np.zeros((2, len(x), len(x)))
        terms = _Terms.of(x, x, lengthscale)

        def fill(rows: slice, columns: slice) -> None:
            sums = terms.sums(rows, columns, slopes=True)
            covariance[rows, columns], slopes[rows, columns] = sums

        over_triangle(fill, len(x))
        return covariance, slopes

    def gradient(self, x: np.ndarray, lengthscale: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return 2 * weights.sum(keepdims=True)[0]

    def cross(self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray) -> np.ndarray:
        covariance = np.empty((len(points), len(x)))
        terms = _Terms.of(points, x, lengthscale)

        def fill(rows: slice) -> None:
            covariance[rows] = terms.sums(rows, slice(None), slopes=False)[0]

        _over_rows(fill, len(points), len(x))
        return covariance

    def cross_slopes(
        self, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray
    ) -> tuple[np.ndarray, Pull]:
        scale = ROOT5 / lengthscale
        signed = scale * (points[:, :, None] - x.T)  # [m, d, n]
        z = np.abs(signed)
        decay = np.exp(-z)
        slopes = signed * (1 + z) * decay * (-scale / 3)
        z += z * z / 3
        z += 1
        z *= decay

        def pull(weights: np.ndarray) -> np.ndarray:
            return slopes @ weights

        return z.sum(axis=1), pull


@dataclasses.dataclass(frozen=True)
class _Terms:
    """One-dimensional kernels between points [m, d] and x [n, d], summed over d a block at a time.

    exp(-|p - x|) is the smaller of exp(p) exp(-x) and exp(-p) exp(x): products take the place of most
    exponentials. Widths lie within one of each other and lengthscales above .01, so nothing overflows.
    """

    points: tuple[np.ndarray, ...]  # positions, growing and falling exponentials: each [d, m]
    x: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, points: np.ndarray, x: np.ndarray, lengthscale: np.ndarray) -> _Terms:
        scale, middle = ROOT5 / lengthscale, x.mean(axis=0)
        sides = [np.ascontiguousarray((scale * (side - middle)).T) for side in (points, x)]
        p, q = ((side, np.exp(side), np.exp(-side)) for side in sides)
        return cls(p, q)

    def sums(self, rows: slice, columns: slice, slopes: bool) -> tuple[np.ndarray, np.ndarray]:
        """Covariances of a block and, if asked for, their slopes by the log lengthscale."""
        shape = self.points[0][0, rows].size, self.x[0][0, columns].size
        linear, square, cubic, z, decay, other = np.zeros((6, *shape))
        for p, grow_p, fall_p, q, grow_q, fall_q in zip(*self.points, *self.x, strict=True):
            np.subtract.outer(p[rows], q[columns], out=z)
            np.multiply.outer(grow_p[rows], fall_q[columns], out=decay)
            np.multiply.outer(fall_p[rows], grow_q[columns], out=other)
            np.minimum(decay, other, out=decay)
            np.abs(z, out=z)
            np.multiply(z, decay, out=other)
            decay += other
            linear += decay
            if slopes:
                other *= z
                square += other
                other *= z
                cubic += other
            else:
                other *= z
                square += other
        square /= 3
        linear += square
        cubic /= 3
        cubic += square
        return linear, cubic


def _matern(own: np.ndarray, others: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariances and (5 / 3) (1 + z) exp(-z), from squared norms and inner products of scaled points."""
    z = own[:, None] + others - 2 * products
    np.maximum(z, 0, out=z)
    z *= 5
    np.sqrt(z, out=z)
    decay = np.exp(-z)
    slopes = z * decay
    slopes += decay
    z *= z
    z *= decay
    z /= 3
    z += slopes
    slopes *= 5 / 3
    return z, slopes


def over_triangle(fill: Callable[[slice, slice], None], n: int) -> None:
    """Calls `fill(rows, columns)` for blocks that cover the lower triangle of [n, n], on two threads."""
    threaded(lambda rows: fill(rows, slice(0, rows.stop)), spans(n, BLOCK // n), n * n)


def spans(count: int, step: int) -> list[slice]:
    """Slices of `step` entries, at least one, that cover `count`."""
    step = max(1, step)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def threaded(work: Callable[[slice], None], slices: list[slice], entries: int) -> None:
    """Calls `work` for every slice, on two threads if there are more entries in all than one block has."""
    if entries <= BLOCK:
        for part in slices:
            work(part)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, slices))


def _over_rows(fill: Callable[[slice], None], rows: int, columns: int) -> None:
    threaded(fill, spans(rows, BLOCK // columns), rows * columns)
