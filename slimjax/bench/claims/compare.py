"""Deciding a claim from a few seeds: paired differences and Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

CONFIDENCE = 0.95

Verdict = bool | str
"""True, False or "unclear"."""


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and spread (sample standard deviation; None for one value)."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "spread": spread}


def interval(differences: Sequence[float], comparisons: int = 1) -> tuple[float, float]:
    """Two one-sided 95 % bounds on the mean of paired differences (Student's t; infinite for one seed).

    Args:
      comparisons: how many such tests one statement rests on; the bounds then hold for all of them
        together (Bonferroni).
    """
    count = len(differences)
    if count < 2:
        return -math.inf, math.inf
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    margin = float(stats.t.ppf(1 - (1 - CONFIDENCE) / comparisons, count - 1)) * error
    return mean - margin, mean + margin


def greater(larger: Sequence[float], smaller: Sequence[float], comparisons: int = 1) -> Verdict:
    """Whether the first is larger on average, seed by seed: true or false beyond doubt, else unclear."""
    low, high = interval([a - b for a, b in zip(larger, smaller, strict=True)], comparisons)
    if low > 0:
        return True
    return False if high < 0 else "unclear"


def within(values: Sequence[float], reference: Sequence[float], margin: float) -> Verdict:
    """Whether the mean difference is smaller than `margin` either way: an equivalence test."""
    low, high = interval([a - b for a, b in zip(values, reference, strict=True)])
    if -margin < low and high < margin:
        return True
    return False if low > margin or high < -margin else "unclear"


def every(verdicts: Sequence[Verdict]) -> Verdict:
    """True if all hold; false if one is refuted; else unclear."""
    if any(v is False for v in verdicts):
        return False
    return True if all(v is True for v in verdicts) else "unclear"


def arm(name: str, values: Sequence[float]) -> dict[str, Any]:
    """One compared arm as it is reported."""
    return {"arm": name, **summary(values)}
