"""Joslim's Bayesian optimiser of widths, MOBO-TS2: targeted sampling of the loss-cost front (ECML 2021, section 3).

One proposal draws a cost target, fits a Gaussian process to the losses and one to the costs of all visited widths,
and looks for the weight of an augmented Tchebyshev scalarisation whose minimiser costs what the target says.

Differs from the authors' code:
  - one set of quasi-random points serves all weights of a proposal, and descents end after 15 steps, where the
    authors draw anew for each weight and descend to convergence: fronts are as good (docs/search.md);
  - if no weight hits the target, the proposal is a point that does, between the nearest cheaper and dearer
    candidate (`BayesOptions.segment`). The authors take the last candidate, however far off;
  - a history that no Gaussian process can be fitted to gives a random proposal of the target's cost.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from slimjax.search import gp, pareto
from slimjax.search.acquisition import Bound, Objective, Tchebyshev, TrueCost
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.encoding import Encoding, seen
from slimjax.search.kernels import AdditiveMatern, Matern
from slimjax.search.segment import CostRatio, nearest_between, random_widths

logger = logging.getLogger(__name__)

PRIOR_POINTS = 20
"""Proposals of one random width for all dimensions, before the full network and the optimiser's own."""

TARGET_FLOOR = 0.1
"""Share of the "pareto" rule that is uniform, so that no target starves."""


class Warm(NamedTuple):
    """Hyper-parameters that a later proposal's fits may begin with."""

    loss: gp.Hyper | None
    cost: gp.Hyper | None

    @staticmethod
    def length(dims: int) -> int:
        """Entries of `packed`: the loss's lengthscales, outputscale and noise, then the cost's three."""
        return dims + 5

    def packed(self, dims: int) -> np.ndarray:
        """The logarithms, float32 [dims + 5]; NaN where there are none."""
        packed = np.full(self.length(dims), np.nan, np.float32)
        if self.loss is not None:
            packed[: dims + 2].flat[: len(self.loss.log())] = self.loss.log()
        if self.cost is not None:
            packed[-3:] = self.cost.log()
        return packed

    @classmethod
    def unpack(cls, packed: np.ndarray) -> Warm:
        """What `packed` made the array from."""
        parts = [part[np.isfinite(part)].astype(np.float64) for part in (packed[:-3], packed[-3:])]
        return cls(*(gp.Hyper.of_log(part) if len(part) else None for part in parts))


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What to visit next.

    Args:
      widths: float [d].
      target: the cost ratio aimed at; None with `random_lambda`.
      ratio: the true cost ratio of `widths`.
      iterations: weights that were tried.
      hit: whether ratio and target are within the tolerance.
      how: "searched", "segment" (no weight hit) or "random" (no fit).
      fit_seconds, seconds: wall time of the fits, and of everything.
      warm: for the next proposal's `start`; None if there was no fit.
    """

    widths: np.ndarray
    target: float | None
    ratio: float
    iterations: int
    hit: bool
    how: str
    fit_seconds: float
    seconds: float
    warm: Warm | None


@dataclasses.dataclass(frozen=True)
class History:
    """What has been visited: widths [n, d], losses [n] and true cost ratios [n], all finite."""

    widths: np.ndarray
    losses: np.ndarray
    ratios: np.ndarray

    @classmethod
    def of(cls, widths: np.ndarray, losses: np.ndarray, cost: CostRatio) -> History:
        """Without failed trials: rows with anything that is not finite are left out, and said so."""
        good = np.isfinite(np.column_stack([widths, losses])).all(axis=1)
        if not good.all():
            logger.warning("search: %d of %d trials are not finite; left out.", (~good).sum(), len(good))
        return cls(widths[good], losses[good], cost(widths[good]) if good.any() else np.empty(0))

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def points(self) -> np.ndarray:
        """float [n, 2]: (loss, cost ratio)."""
        return np.stack([self.losses, self.ratios], axis=1)

    def newest(self, count: int | None) -> History:
        """At most `count` rows: of the front first, of the newest first."""
        if count is None or len(self) <= count:
            return self
        order = np.lexsort([np.arange(len(self)), pareto.front(self.points)])
        rows = np.sort(order[-count:])
        return History(self.widths[rows], self.losses[rows], self.ratios[rows])


def prior(
    index: int,
    dims: int,
    low: float | np.ndarray,
    rng: np.random.Generator,
    encoding: Encoding | None = None,
) -> np.ndarray | None:
    """Widths [d] of proposal number `index`, from 0, if it is one of those before the optimiser's; else None.

    The first `PRIOR_POINTS` are one width for all dimensions, uniform in [low, 1], but for unordered choices, whose
    options are random; then comes the full network.
    """
    if index < PRIOR_POINTS:
        widths = np.maximum(rng.uniform(np.min(low), 1.0), np.broadcast_to(low, dims)).astype(np.float64)
        return widths if encoding is None else encoding.mixed(widths, rng)
    return np.ones(dims) if index == PRIOR_POINTS else None


def propose(
    widths: np.ndarray,
    losses: np.ndarray,
    cost: CostRatio,
    low: float | np.ndarray,
    rng: np.random.Generator,
    options: BayesOptions,
    start: Warm | None = None,
    encoding: Encoding | None = None,
) -> Proposal:
    """The next widths to visit, deterministic in the arguments (but for the seconds).

    Takes two cores at most: where other work competes for them, the threads of BLAS wait for each other, ten times
    as long as one would take alone, so BLAS gets one while this runs.

    Args:
      widths: visited, [n, d] in [low, 1].
      losses: theirs, [n]. Failed trials are not finite; they are left out.
      cost: true cost over the full network's, of widths [..., d]. It may round and repair widths.
      low: smallest width, or one for each dimension [d].
      start: a former proposal's `warm`.
      encoding: of a space with choices; None: all dimensions are widths.

    Raises:
      ValueError: shapes that do not match.
    """
    began = time.perf_counter()
    widths, losses = np.asarray(widths, np.float64), np.asarray(losses, np.float64)
    if widths.ndim != 2 or losses.shape != widths.shape[:1]:
        raise ValueError(f"expected widths [n, d] and losses [n], got {widths.shape} and {losses.shape}.")
    corner = np.array(np.broadcast_to(low, widths.shape[1:]), np.float64)
    history = History.of(widths, losses, cost)
    target = None if options.random_lambda else draw_target(history, float(cost(corner)), rng, options)
    task = _Task(cost, corner, options, rng, target, encoding)
    try:
        with threadpool_limits(1, user_api="blas"):
            found = task.search(history.newest(options.history_cap), start)
    except gp.FitError as error:
        logger.warning("search: %s; a random candidate instead.", error)
        widths = random_widths(cost, target, corner, rng, task.groups)
        found = _Found(widths, 0, "random", time.perf_counter() - began, None)
    ratio = float(cost(found.widths))
    return Proposal(
        **found._asdict(),
        target=target,
        ratio=ratio,
        hit=target is not None and abs(ratio - target) <= options.tolerance,
        seconds=time.perf_counter() - began,
    )


class _Found(NamedTuple):
    """The fields of a `Proposal` that the search decides."""

    widths: np.ndarray
    iterations: int
    how: str
    fit_seconds: float
    warm: Warm | None


@dataclasses.dataclass(frozen=True)
class _Task:
    """One proposal: what stays the same while it is made."""

    cost: CostRatio
    low: np.ndarray
    options: BayesOptions
    rng: np.random.Generator
    target: float | None
    encoding: Encoding | None

    @property
    def groups(self) -> int | None:
        """How many dimensions are widths; None: all."""
        return None if self.encoding is None else self.encoding.groups

    def search(self, history: History, start: Warm | None) -> _Found:
        began = time.perf_counter()
        scalar, warm = self._fit(history, start)
        fit_seconds = time.perf_counter() - began
        points = quasi_random(self.low, self.options.raw_samples, self.rng)
        bounds = scalar.loss.values(points), scalar.cost.values(points)  # they do not depend on the weight

        def best(weight: float) -> np.ndarray:
            values = scalar.scalar(*bounds, weight)
            starts = points[boltzmann(values, self.options.restarts, self.rng)]
            return scalar.minimise(weight, starts, self.low)

        if self.target is None:
            return _Found(best(self.rng.uniform()), 1, "searched", fit_seconds, warm)
        tried = weigh(best, self.cost, self.target, self.options)
        widths, how = self._choose(tried, self.target)
        return _Found(widths, len(tried), how, fit_seconds, warm)

    def _fit(self, history: History, start: Warm | None) -> tuple[Tchebyshev, Warm]:
        """The scalarisation of standardised objectives, and the hyper-parameters."""
        losses, _, _ = _standardised(history.losses)
        ratios, shift, scale = _standardised(history.ratios)
        options, begin = self.options, start or Warm(None, None)
        sign = math.sqrt(options.beta) * (1 if options.bound == "upper" else -1)
        of_loss, of_cost = seen(Matern(options.ard), self.encoding), seen(AdditiveMatern(), self.encoding)
        loss = gp.fit(history.widths, losses, of_loss, self.rng, begin.loss)
        if options.cost_model == "exact":
            objective: Objective = TrueCost(self.cost, shift, scale, self.low, groups=self.groups)
            warm = Warm(loss.hyper, None)
        else:
            process = gp.fit(history.widths, ratios, of_cost, self.rng, begin.cost)
            warm, objective = Warm(loss.hyper, process.hyper), Bound(process, sign)
        return Tchebyshev(Bound(loss, sign), objective, options.baseline, self.encoding), warm

    def _choose(self, tried: list[tuple[np.ndarray, float]], target: float) -> tuple[np.ndarray, str]:
        last, ratio = tried[-1]
        if abs(ratio - target) <= self.options.tolerance or not self.options.segment:
            return last, "searched"
        cheaper = max((t for t in tried if t[1] < target), key=lambda t: t[1], default=(self.low, 0.0))
        dearer = min(
            (t for t in tried if t[1] > target), key=lambda t: t[1], default=(np.ones_like(last), 0.0)
        )
        return nearest_between(self.cost, cheaper[0], dearer[0], target, self.groups), "segment"


def weigh(
    best: Callable[[float], np.ndarray], cost: CostRatio, target: float, options: BayesOptions
) -> list[tuple[np.ndarray, float]]:
    """Bisects the cost's weight; every candidate with its true cost. The last hits the target, or none does.

    Below a baseline above 0 both of the scalarisation's terms are negative. More weight on the cost lowers its term
    there, so the loss's decides, and the minimiser gets dearer: the search turns round, as the authors' does.

    Args:
      best: a weight -> the minimiser's widths [d].
    """
    low, high, tried = 0.0, 1.0, []
    for _ in range(options.iterations):
        weight = (low + high) / 2
        widths = best(weight)
        ratio = float(cost(widths))
        tried.append((widths, ratio))
        if abs(ratio - target) <= options.tolerance:
            break
        less = (ratio < target) == (options.baseline <= 0)
        low, high = (low, weight) if less else (weight, high)
    return tried


def quasi_random(low: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Scrambled Sobol points [count, d] in the box [low, 1]^d."""
    power = (count - 1).bit_length()  # a sequence is even over the box at powers of two
    return low + (1 - low) * qmc.Sobol(len(low), rng=rng).random_base2(power)[:count]


def boltzmann(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of `count` values [m], or of all if they are fewer, drawn without repetition: the lowest, and others.

    Weights are exp(-z) of the standardised values z. If the lowest is not among the drawn ones, it takes the place of
    the last. This is BoTorch's heuristic, with its eta of 1.
    """
    count = min(count, len(values))
    with np.errstate(over="ignore", invalid="ignore"):
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        standard = (values - values.mean()) / spread if 0 < spread < math.inf else np.zeros(len(values))
    weights = np.exp(-standard)
    chosen = rng.choice(len(values), count, replace=False, p=weights / weights.sum())
    if values.argmin() not in chosen:
        chosen[-1] = values.argmin()
    return chosen


def draw_target(history: History, lowest: float, rng: np.random.Generator, options: BayesOptions) -> float:
    """One of the equally spaced cost targets in [lowest, 1]."""
    targets = np.linspace(lowest, 1.0, options.targets)
    pareto_aware = options.target_rule == "pareto"
    return float(rng.choice(targets, p=target_weights(history.points, targets) if pareto_aware else None))


def target_weights(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Probabilities [t] of cost targets by the area under the front of (loss, cost) points [n, 2].

    A target's is proportional to the front's loss at its cost less the front's lowest, so to the share of the
    area above the lowest loss that its cell has; `TARGET_FLOOR` of everything is spread evenly. Left of the cheapest
    point counts its loss.
    """
    even = np.full(len(targets), 1 / len(targets))
    if not len(points):
        return even
    loss, cost = pareto.staircase(points)
    with np.errstate(over="ignore"):
        heights = loss[np.maximum(np.searchsorted(cost, targets, side="right") - 1, 0)] - loss[-1]
        total = heights.sum()
    if not (0 < total < math.inf):
        return even
    return (1 - TARGET_FLOOR) * heights / total + TARGET_FLOOR * even


def _standardised(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Zero mean and unit variance, and what was taken off and divided by. A constant is only shifted."""
    if not len(values):
        raise gp.FitError("no trials yet")
    with np.errstate(over="ignore", invalid="ignore"):
        shift = float(values.mean())
        scale = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        scale = scale if scale > 1e-9 * max(1.0, abs(shift)) else 1.0
        return (values - shift) / scale, shift, scale
