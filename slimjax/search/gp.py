"""Exact Gaussian process regression in float64: hyper-parameters by maximum a posteriori, posterior with slopes.

Joslim's surrogates (reference: BoTorch's SingleTaskGP of 2020): constant mean, priors on lengthscale, outputscale
and noise. Differs: the constant mean is the generalised least squares estimate, which is where its maximum lies,
and not one more parameter of the optimiser.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize
from scipy.linalg import lapack

from slimjax.search.kernels import Kernel, over_triangle, spans, threaded

PRIORS = {"lengthscale": (3.0, 6.0), "outputscale": (2.0, 0.15), "noise": (1.1, 0.05)}
"""Shape and rate of the Gamma prior of each, as densities of the values, not of their logarithms."""

BOUNDS = {"lengthscale": (0.02, 20.0), "outputscale": (1e-4, 1e4), "noise": (1e-4, 10.0)}
"""Noise is a variance; its lower bound is the authors'. The others only keep the optimiser out of the absurd."""

JITTERS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Added to the diagonal in turn, times its mean, until the factorisation succeeds."""

SUBSET = 256
"""A cold start first finds the optimum on this many random points."""

COLUMNS = 128
"""Of a triangular matrix, multiplied at a time."""

POLISH_STEPS = 12
POLISH_GAIN = 0.05
"""Nats of log posterior that a further step must promise."""


class FitError(RuntimeError):
    """No Gaussian process could be fitted to the data; says why."""


@dataclasses.dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of a Gaussian process; `noise` is a variance."""

    lengthscale: tuple[float, ...]
    outputscale: float
    noise: float

    def log(self) -> np.ndarray:
        return np.log([*self.lengthscale, self.outputscale, self.noise])

    @classmethod
    def of_log(cls, vector: np.ndarray) -> Hyper:
        *lengthscale, outputscale, noise = np.exp(vector).tolist()
        return cls(tuple(lengthscale), outputscale, noise)


@dataclasses.dataclass(frozen=True)
class GP:
    """A Gaussian process given data: x [n, d], y [n].

    Args:
      mean: the constant.
      factor: upper triangle, float [n, n], whose transpose times itself is the covariance of y; below it: anything.
      solved: the covariance's inverse @ (y - mean), float [n].
      jitter: what had to be added to the covariance's diagonal.
    """

    kernel: Kernel
    x: np.ndarray
    hyper: Hyper
    mean: float
    factor: np.ndarray
    solved: np.ndarray
    jitter: float

    @functools.cached_property
    def root(self) -> np.ndarray:
        """The factor's inverse. Squares of cross @ root lose far fewer digits than cross @ inverse @ cross."""
        return np.triu(lapack.dtrtri(self.factor, lower=0)[0])

    def posterior(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean [m] and standard deviation [m] of the function (without noise) at points [m, d]."""
        cross = self.kernel.cross(points, self.x, np.array(self.hyper.lengthscale)) * self.hyper.outputscale
        return self.mean + cross @ self.solved, self._deviation(self._projected(cross))

    def posterior_slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Mean [m], standard deviation [m] and their gradients by the points [m, d], each."""
        cross, pull = self.kernel.cross_slopes(points, self.x, np.array(self.hyper.lengthscale))
        cross *= self.hyper.outputscale
        projected = self._projected(cross)
        weights = np.stack(np.broadcast_arrays(self.solved, self._pulled(projected)), axis=2)
        slopes = pull(weights * self.hyper.outputscale)
        deviation = self._deviation(projected)
        mean = self.mean + cross @ self.solved
        return mean, deviation, slopes[..., 0], -slopes[..., 1] / deviation[:, None]

    def _projected(self, cross: np.ndarray) -> np.ndarray:
        """cross [m, n] @ root, without its lower triangle's zeros."""
        result = np.empty_like(cross)

        def fill(columns: slice) -> None:
            result[:, columns] = cross[:, : columns.stop] @ self.root[: columns.stop, columns]

        threaded(fill, spans(cross.shape[1], COLUMNS), cross.size)
        return result

    def _pulled(self, projected: np.ndarray) -> np.ndarray:
        """projected [m, n] @ root transposed, likewise."""
        result = np.empty_like(projected)

        def fill(rows: slice) -> None:
            result[:, rows] = projected[:, rows.start :] @ self.root[rows, rows.start :].T

        threaded(fill, spans(projected.shape[1], COLUMNS), projected.size)
        return result

    def _deviation(self, projected: np.ndarray) -> np.ndarray:
        prior = self.hyper.outputscale * self.kernel.variance(self.x.shape[1])
        variance = prior - np.einsum("mn,mn->m", projected, projected)
        return np.sqrt(np.maximum(variance, 1e-12 * prior))


def fit(
    x: np.ndarray,
    y: np.ndarray,
    kernel: Kernel,
    rng: np.random.Generator,
    start: Hyper | None = None,
) -> GP:
    """The process of the most probable hyper-parameters for widths x [n, d] and standardised y [n].

    Args:
      rng: draws the subset that a cold start begins with.
      start: hyper-parameters to begin with, of a fit to similar data. None is a cold start.

    Raises:
      FitError: no data, entries that are not finite, or a likelihood that is not.
    """
    if not len(y) or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise FitError(
            f"expected finite data, got {len(y)} points, {int((~np.isfinite(y)).sum())} not finite"
        )
    scales, dims = kernel.scales(x.shape[1]), x.shape[1]
    cold = start is None or len(start.lengthscale) != scales
    begin = Hyper((1.5,) * scales, 1.0 / kernel.variance(dims), 0.01) if cold or start is None else start
    vector = np.clip(begin.log(), *_bounds(scales).T)
    objective = _Objective(x, y, kernel)
    if len(y) <= SUBSET:
        return objective.at(_minimum(objective, vector))
    some = rng.choice(len(y), SUBSET, replace=False)
    part = _Objective(x[some], y[some], kernel)
    vector = _minimum(part, vector) if cold else vector
    return objective.at(_polished(objective, vector, _curvature(part, vector)))


class _Objective:
    """The negative log posterior per point of the log hyper-parameters, which remembers its last process."""

    def __init__(self, x: np.ndarray, y: np.ndarray, kernel: Kernel):
        self.x, self.y, self.kernel = x, y, kernel
        self.last: tuple[bytes, GP] | None = None

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        process, likelihood, gradient = likelihood_of(self.x, self.y, self.kernel, Hyper.of_log(vector))
        prior, prior_gradient = log_prior(vector)
        self.last = vector.tobytes(), process
        value, slope = likelihood + prior, gradient + prior_gradient
        if not (math.isfinite(value) and np.isfinite(slope).all()):
            raise FitError(f"the likelihood at {process.hyper} is not finite")
        return -value / len(self.y), -slope / len(self.y)

    def at(self, vector: np.ndarray) -> GP:
        """The process there, for nothing if it is the last."""
        if self.last is None or self.last[0] != vector.tobytes():
            self(vector)
        assert self.last is not None
        return self.last[1]


def _minimum(objective: _Objective, start: np.ndarray) -> np.ndarray:
    options = {"ftol": 1e-9, "gtol": 1e-4, "maxiter": 60}
    bounds = _bounds(len(start) - 2)
    return optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


def _curvature(objective: _Objective, vector: np.ndarray) -> np.ndarray:
    """The Hessian by differences of gradients, made safely positive."""
    steps = 0.01 * np.eye(len(vector))
    _, here = objective(vector)
    hessian = np.array([objective(vector + step)[1] - here for step in steps]) / 0.01
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    return (vectors * np.maximum(np.abs(values), 1e-3)) @ vectors.T


def _polished(objective: _Objective, vector: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """A minimum near `vector` by BFGS steps within the bounds, from a Hessian that is known nearly.

    Lengthscale and outputscale trade off along a ridge, where L-BFGS-B, which knows no Hessian, takes three times
    as many steps; each is a factorisation of all data.
    """
    low, high = _bounds(len(vector) - 2).T
    value, gradient = objective(vector)
    for _ in range(POLISH_STEPS):
        free = ~(((vector <= low) & (gradient > 0)) | ((vector >= high) & (gradient < 0)))
        step = np.zeros_like(vector)
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        step = np.clip(vector + step / max(1.0, np.abs(step).max()), low, high) - vector
        if -gradient @ step * len(objective.y) < POLISH_GAIN:
            break
        new_value, new_gradient = objective(vector + step)
        hessian = _bfgs(hessian, step, new_gradient - gradient)
        if new_value < value:
            vector, value, gradient = vector + step, new_value, new_gradient
    return vector


def _bfgs(hessian: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The update, left out where it would not stay positive."""
    along, pushed = float(step @ change), hessian @ step
    if along <= 1e-3 * float(step @ pushed):
        return hessian * 2  # the step was too long: be careful
    return hessian + np.outer(change, change) / along - np.outer(pushed, pushed) / (step @ pushed)


def likelihood_of(x: np.ndarray, y: np.ndarray, kernel: Kernel, hyper: Hyper) -> tuple[GP, float, np.ndarray]:
    """The process, its log marginal likelihood, and the gradient by the log hyper-parameters.

    Raises:
      FitError: no jitter makes the covariance positive definite.
    """
    lengthscale = np.array(hyper.lengthscale)
    correlation, slopes = kernel.gram(x, lengthscale)
    factor, jitter = _factorised(correlation, hyper)
    half_logdet = float(np.log(np.diagonal(factor)).sum())
    ones = np.ones_like(y)
    both = lapack.dpotrs(factor, np.stack([y, ones], axis=1), lower=0)[0]
    mean = float(both[:, 0].sum() / both[:, 1].sum())
    residual, solved = y - mean, both[:, 0] - mean * both[:, 1]
    inverse = lapack.dpotri(factor, lower=0)[0].T  # its lower triangle
    fit_term = float(residual @ solved)
    value = -0.5 * fit_term - half_logdet - 0.5 * len(y) * math.log(2 * math.pi)

    def weigh(rows: slice, columns: slice) -> None:
        block = np.multiply.outer(solved[rows], solved[columns])
        block -= inverse[rows, columns]
        slopes[rows, columns] *= np.tril(block, rows.start - 1)

    over_triangle(weigh, len(y))
    by_scale = 0.5 * hyper.outputscale * kernel.gradient(x, lengthscale, slopes)
    noise = hyper.noise + jitter
    spread = float(solved @ solved - np.trace(inverse))
    by_outputscale = 0.5 * (fit_term - len(y) - noise * spread)
    gradient = np.array([*by_scale, by_outputscale, 0.5 * hyper.noise * spread])
    return GP(kernel, x, hyper, mean, factor, solved, jitter), value, gradient


def condition(x: np.ndarray, y: np.ndarray, kernel: Kernel, hyper: Hyper) -> GP:
    """The process given data, of known hyper-parameters."""
    return likelihood_of(x, y, kernel, hyper)[0]


def log_prior(vector: np.ndarray) -> tuple[float, np.ndarray]:
    """Log density of the hyper-parameters without its constant, and the gradient by their logarithms."""
    shape, rate = _by_entry(PRIORS, len(vector) - 2).T
    values = np.exp(vector)
    return float(np.sum((shape - 1) * vector - rate * values)), shape - 1 - rate * values


def _bounds(scales: int) -> np.ndarray:
    """[scales + 2, 2]: (lowest, highest) log hyper-parameters."""
    return np.log(_by_entry(BOUNDS, scales))


def _by_entry(table: dict[str, tuple[float, float]], scales: int) -> np.ndarray:
    """Rows of a table for [lengthscales, outputscale, noise]."""
    rows: Sequence[tuple[float, float]] = [table["lengthscale"]] * scales
    return np.array([*rows, table["outputscale"], table["noise"]])


def _factorised(correlation: np.ndarray, hyper: Hyper) -> tuple[np.ndarray, float]:
    """The Cholesky factor, as LAPACK's upper triangle, and the jitter that it took."""
    size = hyper.outputscale * float(np.diagonal(correlation).mean()) + hyper.noise
    for jitter in JITTERS:
        covariance = correlation * hyper.outputscale
        covariance.flat[:: len(covariance) + 1] += hyper.noise + jitter * size
        factor, info = lapack.dpotrf(covariance.T, lower=0, overwrite_a=1, clean=0)
        if info == 0 and np.isfinite(np.diagonal(factor)).all():
            return factor, jitter * size
    raise FitError(f"the covariance is not positive definite at {hyper}")
