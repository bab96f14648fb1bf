"""Options of the Bayesian optimiser."""

from __future__ import annotations

import dataclasses

from slimjax.checks import FLAG, check_fields, integer, number, one_of, optional


@dataclasses.dataclass(frozen=True)
class BayesOptions:
    """Options of the optimiser. The defaults are the authors'.

    Args:
      beta: bounds are mean +- sqrt(beta) standard deviations.
      baseline: standardised value that the scalarisation counts from: below everything visited (the commands of
        the authors: -3), or above it (their code's default: 5). Above 0, the weight is bisected the other way round.
      iterations: weights that one proposal tries at most.
      tolerance: a target is hit by cost ratios this near.
      restarts: descents at each weight.
      raw_samples: quasi-random points; descents begin at some of them, at each weight the better the likelier.
      targets: equally spaced cost targets, from the smallest network to the full one.
      cost_model: "gp" learns the cost too, as the authors do; "exact" takes it as it is.
      bound: "upper", the authors', is pessimistic, as both objectives are minimised: on known fronts it leaves the
        uniform widths that a search begins with slowly. "lower" explores, and comes nearer to them.
      ard: a lengthscale for each dimension of the loss.
      target_rule: "uniform"; or "pareto", after PareCO: a target's weight is the height of the current front above
        its lowest loss at that cost, so its cell's share of the area between the two, and a tenth uniform.
      history_cap: points to fit at most: the current front (its newest points, if it has more than that), then
        the newest others. None: all.
      segment: where no weight hits the target, go between candidates. False: the last candidate, as the authors.
      random_lambda: no search: one weight, uniform in [0, 1] (the ablation of the search).

    Raises:
      BadValue: naming the option.
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
        check_fields(self, _RULES)


_RULES = {
    "beta": number(0),
    "baseline": number(),
    "iterations": integer(1),
    "tolerance": number(0, 1, above=True),
    "restarts": integer(1),
    "raw_samples": integer(1),
    "targets": integer(2),
    "cost_model": one_of("gp", "exact"),
    "bound": one_of("upper", "lower"),
    "ard": FLAG,
    "target_rule": one_of("uniform", "pareto"),
    "history_cap": optional(integer(2)),
    "segment": FLAG,
    "random_lambda": FLAG,
}
