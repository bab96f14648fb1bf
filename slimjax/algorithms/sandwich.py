"""The sandwich rule: the largest, the smallest and random subnets in every step, whoever draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from slimjax.algorithms.base import Algorithm, Chosen
from slimjax.algorithms.turns import throughout
from slimjax.checks import check, integer, number, one_of
from slimjax.errors import BadValue
from slimjax.nn.space import Space, Subnet
from slimjax.nn.widths import width_name
from slimjax.step.composed import ComposedStep
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState

SAMPLED_STEPS = 512
TARGETS = ("labels", "teacher", "both")

Draw = Callable[[np.random.Generator, int], Subnet]
"""(random numbers, N) -> int32 [N, G]."""


def sandwich(
    engine: Engine,
    draw: Draw,
    *,
    num_subnets: int,
    sample_max: bool,
    sample_min: bool,
    student_target: str,
    sampling_seed: int,
    dropout: float = 0.0,
    zero_last_gammas: bool = False,
) -> Algorithm:
    """Max, min and n - 2 drawn subnets a step; gradients summed; one update.

    The largest network learns from labels; all others from its detached softmax (in-place distillation).
    Running statistics are kept for max and min only, to watch training.

    Args:
      draw: makes a step's random subnets.
      num_subnets: n, the subnets of a step, max and min counted.
      sample_max, sample_min: whether the largest and smallest are always among them (ablations).
      student_target: "teacher", "labels", or "both" (their sum) for all but the largest.
      dropout: of the classifier's input, in the largest network only, which alone sees the labels.
      zero_last_gammas: see `engine.Engine.init`.
      sampling_seed: the proposals are a function of it and the step.
    """
    space = engine.net.space
    random_count = num_subnets - sample_max - (sample_min and num_subnets > 1)
    _check(num_subnets, random_count, sample_max, student_target)
    check("sampling_seed", sampling_seed, integer(0))
    check("dropout", dropout, number(0, 0.99))
    slots = _slots(space, random_count, sample_max, sample_min and num_subnets > 1, student_target, dropout)

    def propose(arrays: Any, step: int) -> np.ndarray:
        del arrays
        subnets = draw(np.random.default_rng((sampling_seed, step)), random_count)
        return subnets.reshape(random_count, len(space))

    def choose(state: TrainState, subnets: Mapping[str, Subnet] | None = None) -> dict[str, Chosen]:
        if subnets is None:
            widths = np.linspace(space.min_width, space.max_width, 12).round(3)
            subnets = {width_name(w): space.uniform(w) for w in widths}
        # Before calibration a subnet can only borrow: the largest network's running statistics.
        stats = "max" if "max" in state.batch_stats else None
        return {name: Chosen(subnet, stats=stats) for name, subnet in subnets.items()}

    # The distribution that programs are chosen for: what the first steps will propose.
    sample = np.concatenate([propose({}, step) for step in range(SAMPLED_STEPS)])
    return Algorithm(
        phases=throughout(ComposedStep(engine, slots, sample)),
        init=lambda seed: engine.init(seed, slots, zero_last_gammas=zero_last_gammas),
        propose=propose,
        choose=choose,
    )


def _slots(
    space: Space, randoms: int, largest: bool, smallest: bool, target: str, dropout: float
) -> tuple[Slot, ...]:
    full = tuple(space.largest.tolist())
    slots = [Slot("max", full, stats="max", dropout=dropout)] if largest else []
    if smallest:
        slots.append(Slot("min", tuple(space.smallest.tolist()), stats="min", target=target))
    slots += [Slot(f"random{i}", target=target) for i in range(1, randoms + 1)]
    return tuple(slots)


def _check(num_subnets: int, random_count: int, sample_max: bool, target: str) -> None:
    if num_subnets < 1 or random_count < 0:
        raise BadValue("num_subnets", f"expected at least 1 (2 with max and min), got {num_subnets}.")
    check("student_target", target, one_of(*TARGETS))
    if target != "labels" and not sample_max:
        raise BadValue(
            "student_target",
            f"{target!r} needs the largest network as the teacher; "
            "set sample_max=True or student_target='labels'.",
        )
