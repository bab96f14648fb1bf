"""What a claim is, and what is read from measurements to decide it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from slimjax.bench.claims import compare

Measured = Mapping[str, Sequence[Mapping[str, Any]]]
"""Arm name -> measurements by seed."""


class Outcome(NamedTuple):
    metric: str
    compared: list[dict[str, Any]]
    holds: compare.Verdict


class Claim(NamedTuple):
    """A claim of the reference list: its number, its words, the arms it needs, how it is decided."""

    number: int
    text: str
    arms: tuple[str, ...]
    decide: Callable[[Measured], Outcome]


def by_seed(measured: Measured, arm: str, probe: str, name: str, key: str) -> list[float]:
    """Per seed, one score of one subnet."""
    return [seed[probe][name][key] for seed in measured[arm]]


def mean_by_seed(measured: Measured, arm: str, probe: str, names: Sequence[str], key: str) -> list[float]:
    """Per seed, the mean of a score over several subnets."""
    return [sum(seed[probe][n][key] for n in names) / len(names) for seed in measured[arm]]
