"""Options of the Bayesian optimiser."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from slimjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class BayesOptions:
    """Options of the optimiser. The defaults are the authors'.

    Args:
      beta: bounds are mean +- sqrt(beta) standard deviations.
      baseline: standardised value that the scalarisation counts from.
      iterations: weights that one proposal tries at most.
      tolerance: a target is hit by cost ratios this near.
      restarts: descents at each weight.
      raw_samples: random points from which descents may begin.
      targets: equally spaced cost targets, from the smallest network to the full one.
      cost_model: "gp" learns the cost too, as the authors do; "exact" takes it as it is.
      bound: "upper", the authors', is pessimistic, as both objectives are minimised: on known fronts it hardly leaves
        the uniform widths that a search begins with. "lower" explores, and finds them.
      ard: a lengthscale for each dimension of the loss.
      target_rule: "uniform"; or "pareto", after PareCO: a target's weight is the height of the current front above
        its lowest loss at that cost, so its cell's share of the area between the two, and a tenth uniform.
      history_cap: points to fit at most: the current front (its newest points, if it has more than that), then
        the newest others. None: all.
      segment: where no weight hits the target, go between candidates. False: the last candidate, as the authors.
      random_lambda: no search: one weight, uniform in [0, 1] (the ablation of the search).

    Raises:
      UserError: naming the option.
    """

    beta: float = 0.1
    baseline: float = -3.0
    iterations: int = 10
    tolerance: float = 0.02
    restarts: int = 5
    raw_samples: int = 1000
    targets: int = 50
    cost_model: str = "gp"
    bound: str = "upper"
    ard: bool = False
    target_rule: str = "uniform"
    history_cap: int | None = None
    segment: bool = True
    random_lambda: bool = False

    def __post_init__(self) -> None:
        for name, (expected, legal) in _RULES.items():
            value = getattr(self, name)
            if not legal(value):
                raise UserError(f"algorithm.{name}: expected {expected}, got {value!r}.")


Rule = Callable[[Any], bool]


def _number(low: float, high: float = math.inf) -> Rule:
    return lambda v: type(v) in (int, float) and math.isfinite(v) and low <= v <= high


def _integer(low: int) -> Rule:
    return lambda v: type(v) is int and v >= low


def _choice(*names: str) -> tuple[str, Rule]:
    return f"one of {', '.join(names)}", lambda v: v in names


_FLAG: tuple[str, Rule] = ("True or False", lambda v: isinstance(v, bool))
_RULES: dict[str, tuple[str, Rule]] = {
    "beta": ("a number of 0 or more", _number(0)),
    "baseline": ("a number", _number(-math.inf)),
    "iterations": ("a positive integer", _integer(1)),
    "tolerance": ("a number in (0, 1]", lambda v: _number(0, 1)(v) and v > 0),
    "restarts": ("a positive integer", _integer(1)),
    "raw_samples": ("a positive integer", _integer(1)),
    "targets": ("an integer of 2 or more", _integer(2)),
    "cost_model": _choice("gp", "exact"),
    "bound": _choice("upper", "lower"),
    "ard": _FLAG,
    "target_rule": _choice("uniform", "pareto"),
    "history_cap": ("None or an integer of 2 or more", lambda v: v is None or _integer(2)(v)),
    "segment": _FLAG,
    "random_lambda": _FLAG,
}
