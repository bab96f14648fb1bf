"""What an algorithm is: a few functions over explicit state (optax's idiom)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax

from slimjax.algorithms.turns import Phase, Step, Turn, index_at
from slimjax.nn.space import Subnet
from slimjax.search.run import Score
from slimjax.search.trials import Trial
from slimjax.step.programs import ProgramCounts
from slimjax.step.state import SHARED, TrainState, Tree


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A subnet to evaluate or ship.

    Args:
      subnet: int32 [G].
      affine: the gammas and betas it uses.
      stats: the running statistics that training left for it, or the nearest thing to it; None: none.
      found: training itself has found it; it is written down as an architecture.
      costs: what is known of it beside MACs and parameters, with units in the names.
    """

    subnet: Subnet
    affine: str = SHARED
    stats: str | None = None
    found: bool = False
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)


Revise = Callable[[TrainState, int, Score], TrainState]
"""(state, step, score of subnets with these weights) -> the state that the step begins with."""


def learning(observe: Callable[[Tree, int, Score], Tree]) -> Revise:
    """A revision of the algorithm's own arrays only: (arrays, step, score) -> arrays."""

    def revise(state: TrainState, step: int, score: Score) -> TrainState:
        return dataclasses.replace(state, algorithm=observe(state.algorithm, step, score))

    return revise


def leave(state: TrainState, step: int, score: Score) -> TrainState:
    """`revise` of an algorithm whose state only its steps change."""
    del step, score
    return state


def no_trials(arrays: Tree, step: int) -> list[Trial]:
    """`trials` of an algorithm that does not search."""
    del arrays, step
    return []


def measure_nothing(state: TrainState, step: int) -> dict[str, float]:
    """`measure` of an algorithm whose steps' metrics say everything."""
    del state, step
    return {}


def say_nothing(before: Tree, after: Tree, step: int) -> list[str]:
    """`news` of an algorithm that changes nothing worth a line."""
    del before, after, step
    return []


class Algorithm(NamedTuple):
    """How subnets are trained together, and which ones come of it.

    For each step the loop calls `revise`, `propose` and the step that `turn` names; before and after
    training, `choose`. All state is in `TrainState`, so all of it is checkpointed; an algorithm's own arrays are its
    field `algorithm`. What a later system needs beyond this comes as a further field with a default.

    Pure functions:
      init: seed -> state. Its `algorithm` arrays live on the host, and are alike on all processes.
      choose: (state, subnets by name or None for the algorithm's own) -> `Chosen` by name: what to evaluate or ship.
        Also called before training, with a state of shapes, so that subnets that cannot run are refused at once
        (UserError).

    Host code (NumPy; deterministic in its arguments, whatever threads it uses):
      revise: (state, step, score) -> the state that the step begins with: the algorithm has learnt what it wants to
        know before it (scores of subnets, norms of channels), and may have changed anything: the order of channels,
        its own arrays, what the next phase starts from.
      propose: (`algorithm` arrays, step) -> int32 [R, G]: this step's subnets for the slots that have none of their
        own.
      trials: (`algorithm` arrays, step) -> what a search has proposed so far, as known at the step.
      measure: (state, updates done) -> numbers by name, beside the step's own metrics, for `metrics.jsonl`.
      news: (`algorithm` arrays before and after a revision, step) -> lines for people who watch.

    Program caches:
      phases: who makes which update, in order; the first begins at 0.

    Plain data:
      needs_scores: whether `revise` asks for scores: images to score subnets on must be there, and what is proposed
        depends on a history.
      schedule: the learning rate by update, where it is not the one that the engine's optimiser was built for.
    """

    phases: tuple[Phase, ...]
    init: Callable[[int], TrainState]
    propose: Callable[[Tree, int], Subnet]
    choose: Callable[[TrainState, Mapping[str, Subnet] | None], dict[str, Chosen]]
    revise: Revise = leave
    trials: Callable[[Tree, int], list[Trial]] = no_trials
    measure: Callable[[TrainState, int], dict[str, float]] = measure_nothing
    news: Callable[[Tree, Tree, int], list[str]] = say_nothing
    needs_scores: bool = False
    schedule: optax.Schedule | None = None

    def at(self, step: int) -> Phase:
        """The phase that an update belongs to."""
        return self.phases[index_at(self.phases, step)]

    def turn(self, step: int) -> Turn:
        """Who makes an update."""
        phase = self.at(step)
        return phase.turns[(step - phase.first) % len(phase.turns)]

    def steps(self) -> list[Step]:
        """The different steps of its phases, in order."""
        turns = [turn for phase in self.phases for turn in phase.turns]
        return list({id(turn.step): turn.step for turn in turns}.values())

    def counts(self) -> ProgramCounts:
        """Programs of all its steps together."""
        counts = [step.counts() for step in self.steps()]
        return ProgramCounts(sum(count.live for count in counts), sum(count.compiled for count in counts))
