"""Who makes which update of a run: steps, turns and phases."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax

from slimjax.nn.space import Subnet
from slimjax.step.programs import ProgramCounts
from slimjax.step.slots import Batch, Metrics, Slot
from slimjax.step.state import TrainState, Tree


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
    def parts(self) -> tuple[str, ...]:
        """The programs that one step runs, by name, in order."""

    @property
    def expected(self) -> Subnet:
        """int32 [N, G]: a sample of the subnets that will be proposed."""


class Turn(NamedTuple):
    """Who makes an update, and on which images.

    Args:
      split: "train", or "holdout" for what is learnt on images that were kept back.
    """

    step: Step
    split: str = "train"


class Phase(NamedTuple):
    """Consecutive updates of a run, made by one step on images of one split, or by several in turns.

    Args:
      first: the number of its first update; it lasts until the next phase begins. Phases with the same `first` have no
        updates, but for the last of them.
      step, split: of the first turn; `others`: of those that come after it, before it is its turn again.
    """

    name: str
    step: Step
    first: int = 0
    split: str = "train"
    others: tuple[Turn, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """One after the other, and from the beginning again."""
        return (Turn(self.step, self.split), *self.others)


def index_at(phases: Sequence[Phase], step: int) -> int:
    """Of the phase that an update belongs to, among all."""
    return bisect.bisect_right(phases, step, key=lambda phase: phase.first) - 1


def throughout(step: Step) -> tuple[Phase, ...]:
    """The phases of an algorithm that has only one."""
    return (Phase("train", step),)
