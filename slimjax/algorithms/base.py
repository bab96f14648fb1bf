"""What an algorithm is: five pure functions over explicit state (optax's idiom)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from slimjax.engine import Metrics, Slot, Step
from slimjax.state import SHARED, TrainState
from slimjax.widths import Subnet


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A subnet to evaluate or ship.

    Args:
      subnet: int32 [G].
      affine: the gammas and betas it uses.
      stats: the running statistics that training left for it, or the nearest thing to it; None: none.
    """

    subnet: Subnet
    affine: str = SHARED
    stats: str | None = None


class Algorithm(NamedTuple):
    """How subnets are trained together, and which ones come of it.

    Args:
      slots: the subnets of a step, in order; the plan that is printed before training.
      init: seed -> state.
      propose: (state's `algorithm` arrays, step) -> int32 [R, G]: this step's subnets for the slots that
        have none of their own. Host code, deterministic in its arguments.
      step: (state, batch, subnets) -> (state, metrics); jitted, donates the state.
      observe: (state's `algorithm` arrays, metrics) -> the same arrays, having learnt from the step.
      finish: (state, subnets by name or None for the algorithm's own) -> `Chosen` by name.
    """

    slots: tuple[Slot, ...]
    init: Callable[[int], TrainState]
    propose: Callable[[Any, int], np.ndarray]
    step: Step
    observe: Callable[[Any, Metrics], Any]
    finish: Callable[[TrainState, Mapping[str, Subnet] | None], dict[str, Chosen]]


def learn_nothing(arrays: Any, metrics: Metrics) -> Any:
    """`observe` of an algorithm that keeps no state of its own."""
    del metrics
    return arrays
