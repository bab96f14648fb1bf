"""What an algorithm is: a few functions over explicit state (optax's idiom)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax

from slimjax.nn.space import Subnet
from slimjax.search.run import Score
from slimjax.search.trials import Trial
from slimjax.step.programs import ProgramCounts
from slimjax.step.slots import Batch, Metrics, Slot
from slimjax.step.state import SHARED, TrainState, Tree


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


class Step(Protocol):
    """What the loop and the plan may ask of a step (`step.composed.ComposedStep`).

    A step is a cache of compiled programs: what it returns is a pure function of its arguments, what it has compiled is
    not part of any state.
    """

    slots: tuple[Slot, ...]

    def __call__(self, state: TrainState, batch: Batch, subnets: Subnet) -> tuple[TrainState, Metrics]:
        """One update; the old state is donated. `subnets` is int32 [R, G], a row per slot that moves, in order."""

    def compile(
        self, state: TrainState, batch: Tree, subnets: Subnet, compiled: Callable[[], None] = lambda: None
    ) -> list[tuple[jax.stages.Compiled, Tree]]:
        """The programs of one step, in order, with their arguments; compiled, not run."""

    def shapes(self, state: TrainState, batch: Batch, subnets: Subnet) -> tuple[TrainState, Metrics]:
        """The shapes of the result, without compiling or computing anything."""

    def describe(self) -> list[str]:
        """How each slot runs, in words."""

    def counts(self) -> ProgramCounts:
        """Programs that are alive, and how many were compiled so far."""

    def executed_macs(self, draws: Subnet | None = None) -> float:
        """Forward MACs per image that a step executes, on average over `draws` [N, G] (None: `expected`)."""

    def exact_macs(self, draws: Subnet | None = None) -> float:
        """The same, with every subnet at exactly its own size."""

    def sampled(self, count: int) -> Subnet:
        """int32 [count, R, G]: what `count` steps may be given, from `expected`."""

    @property
    def expected(self) -> Subnet:
        """int32 [N, G]: a sample of the subnets that will be proposed."""


def learn_nothing(arrays: Tree, step: int, score: Score) -> Tree:
    """`observe` of an algorithm that keeps no state of its own."""
    del step, score
    return arrays


def no_trials(arrays: Tree, step: int) -> list[Trial]:
    """`trials` of an algorithm that does not search."""
    del arrays, step
    return []


class Algorithm(NamedTuple):
    """How subnets are trained together, and which ones come of it.

    For each step the loop calls `observe`, `propose` and `step`; before and after training, `choose`. All state is in
    `TrainState`, so all of it is checkpointed; an algorithm's own arrays are its field `algorithm`. What a later system
    needs beyond this comes as a further field with a default.

    Pure functions:
      init: seed -> state. Its `algorithm` arrays live on the host, and are alike on all processes.
      choose: (state, subnets by name or None for the algorithm's own) -> `Chosen` by name: what to evaluate or ship.
        Also called before training, with a state of shapes, so that subnets that cannot run are refused at once
        (UserError).

    Host code (NumPy; deterministic in its arguments, whatever threads it uses):
      observe: (`algorithm` arrays, step, score) -> the same arrays, having learnt what it wants to know before the
        step.
      propose: (`algorithm` arrays, step) -> int32 [R, G]: this step's subnets for the slots that have none of their
        own.
      trials: (`algorithm` arrays, step) -> what a search has proposed so far, as known at the step.

    A program cache:
      step: (state, batch, subnets) -> (state, metrics); compiled, donates the state.

    Plain data:
      slots: the subnets of a step, in order; the plan that is printed before training.
      needs_scores: whether `observe` asks for scores: images to score subnets on must be there, and what is proposed
        depends on a history.
    """

    slots: tuple[Slot, ...]
    init: Callable[[int], TrainState]
    propose: Callable[[Tree, int], Subnet]
    step: Step
    choose: Callable[[TrainState, Mapping[str, Subnet] | None], dict[str, Chosen]]
    observe: Callable[[Tree, int, Score], Tree] = learn_nothing
    trials: Callable[[Tree, int], list[Trial]] = no_trials
    needs_scores: bool = False

    def observed(self, state: TrainState, step: int, score: Score) -> TrainState:
        """The state, the algorithm having learnt what it wants to know before a step."""
        return dataclasses.replace(state, algorithm=self.observe(state.algorithm, step, score))
