"""What an algorithm is: five pure functions over explicit state (optax's idiom)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from slimjax.nn.space import Subnet
from slimjax.search.run import Score
from slimjax.search.trials import Trial
from slimjax.step.engine import Slot, Step
from slimjax.step.state import SHARED, TrainState


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
      init: seed -> state. Its `algorithm` arrays live on the host, and are alike on all processes.
      observe: (`algorithm` arrays, step, score) -> the same arrays, having learnt what it wants to know before
        the step. Host code, deterministic in its arguments.
      propose: (`algorithm` arrays, step) -> int32 [R, G]: this step's subnets for the slots that have none
        of their own. Host code, deterministic in its arguments.
      step: (state, batch, subnets) -> (state, metrics); jitted, donates the state.
      trials: (`algorithm` arrays, step) -> what a search has proposed so far, as known at the step.
      finish: (state, subnets by name or None for the algorithm's own) -> `Chosen` by name.
    """

    slots: tuple[Slot, ...]
    init: Callable[[int], TrainState]
    observe: Callable[[Any, int, Score], Any]
    propose: Callable[[Any, int], np.ndarray]
    step: Step
    finish: Callable[[TrainState, Mapping[str, Subnet] | None], dict[str, Chosen]]
    trials: Callable[[Any, int], list[Trial]] = lambda arrays, step: []

    @property
    def asks_for_scores(self) -> bool:
        """Whether training needs images to score subnets on, and proposals need a history."""
        return self.observe is not learn_nothing


def learn_nothing(arrays: Any, step: int, score: Score) -> Any:
    """`observe` of an algorithm that keeps no state of its own."""
    del step, score
    return arrays
