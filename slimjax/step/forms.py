"""Forms: how the subnets of a step run, sliced, bucketed or masked, and what that costs. Host code; no weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from slimjax.nn.space import Subnet
from slimjax.step import rungs
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot

FIXED_PROGRAMS = 2
"""Of every step, whatever its slots: prepare and update."""

Channels = Sequence[int] | Subnet
"""A subnet as a tuple or a row."""


class Form(NamedTuple):
    """How a subnet runs: at static sizes [G] and, if `masked`, with active counts within them."""

    sizes: tuple[int, ...]
    masked: bool

    @classmethod
    def exact(cls, subnet: Channels) -> Form:
        """Sliced: at its own size."""
        return cls(tuple(int(n) for n in subnet), masked=False)


@dataclasses.dataclass(frozen=True)
class Forms:
    """The form of every subnet of a step, under the engine's policy.

    Args:
      slots: the subnets of a step, in order.
      draws: int32 [N, G], a sample of the subnets that will be proposed; the rungs are chosen for them.
      paths_drawn: the devices draw the options of choices, so no program is for one path alone.
    """

    engine: Engine
    slots: tuple[Slot, ...]
    draws: Subnet
    paths_drawn: bool = False

    def of(self, slot: Slot, subnet: Channels) -> Form:
        """How a slot's subnet runs; a lasting one, once its own program is compiled."""
        if self.paths_drawn or slot.mixture.names:
            return self.cover(subnet)._replace(masked=True)
        policy, stays = self.engine.policy, slot.lasting or not slot.moves
        return (
            Form.exact(subnet) if policy == "sliced" or (policy == "auto" and stays) else self.cover(subnet)
        )

    def cover(self, subnet: Channels) -> Form:
        """The cheapest form that serves the subnet and others: a rung, or the full size."""
        space, row = self.engine.net.space, np.asarray(subnet)
        index = None if self.engine.policy == "masked" else rungs.cover(self.rungs, row, space.static)
        exact = Form.exact(subnet)
        covering = Form.exact(space.covering(row) if index is None else self.rungs[index])
        # A rung that some subnets fill and others do not is one program, not two.
        return exact if self.rungs_are_exact and covering == exact else covering._replace(masked=True)

    @functools.cached_property
    def most_programs(self) -> int:
        """Programs that may be alive: no fewer than one step needs, lest they push each other out in every step.

        What is static always (resolutions) differs from step to step, and each has a program.
        """
        return max(self.engine.max_programs, self._programs_without_rungs + self._kinds * self._statics)

    @functools.cached_property
    def rungs(self) -> Subnet:
        """int32 [K, G] for the subnets that change, by rising cost; their own sizes where so many suffice."""
        policy, draws = self.engine.policy, self.draws
        fixed = [slot.subnet for slot in self.slots if slot.subnet is not None]
        if policy == "bucketed" and fixed:
            draws = np.concatenate([draws, np.array(fixed, np.int32)])
        if policy not in ("auto", "bucketed") or not len(draws):
            return np.zeros((0, draws.shape[1]), np.int32)
        spare = self.most_programs - self._programs_without_rungs
        count, static = spare // max(1, self._kinds), self.engine.net.space.static
        return rungs.choose(draws, self.engine.rung_cost or self.engine.net.macs, count, static)

    @functools.cached_property
    def rungs_are_exact(self) -> bool:
        """Whether every drawn subnet has a rung of its own size."""
        return 0 < len(self.rungs) == len(np.unique(self.draws, axis=0))

    @property
    def _kinds(self) -> int:
        """Programs of one rung: one for every kind of slot that moves; the first slot starts the accumulator."""
        return len({(i == 0, slot.target, slot.stats) for i, slot in enumerate(self.slots) if slot.moves})

    @property
    def _statics(self) -> int:
        """How often what is static always differs among the draws."""
        return max(1, len(np.unique(self.draws[:, self.engine.net.space.static], axis=0)))

    @property
    def _programs_without_rungs(self) -> int:
        return FIXED_PROGRAMS + sum(slot.lasting or not slot.moves for slot in self.slots)

    def describe(self) -> list[str]:
        """How each slot runs, in words."""
        fixed = [(slot, slot.subnet) for slot in self.slots if slot.subnet is not None]
        lines = [
            f"{slot.name} {'masked' if self.of(slot, subnet).masked else 'sliced'}" for slot, subnet in fixed
        ]
        lasting = [slot.name for slot in self.slots if slot.lasting and self.engine.policy == "auto"]
        if lasting:
            lines.append(f"{', '.join(lasting)} sliced once compiled")
        if moving := [slot.name for slot in self.slots if slot.moves and slot.name not in lasting]:
            lines.append(f"{', '.join(moving)} {self._describe_moving()}")
        return lines

    def _describe_moving(self) -> str:
        if len(self.rungs):
            return f"in {len(self.rungs)} {'exact sizes' if self.rungs_are_exact else 'rungs'}"
        return "sliced" if self.engine.policy == "sliced" else "masked"

    def executed_macs(self, draws: Subnet | None = None) -> float:
        """Forward MACs per image that a step executes, on average over `draws` (the step's own sample)."""
        return self._macs(draws, lambda slot, subnet: self.of(slot, subnet).sizes)

    def exact_macs(self, draws: Subnet | None = None) -> float:
        """The floor: the same, with every subnet at exactly its own size."""
        return self._macs(draws, lambda slot, subnet: subnet)

    def _macs(self, draws: Subnet | None, sizes: Callable[[Slot, Channels], Channels]) -> float:
        moving, net = self.draws if draws is None else draws, self.engine.net
        total = 0.0
        for slot in self.slots:
            subnets: Sequence[Channels] = list(moving) if slot.subnet is None else [slot.subnet]
            ran = np.array([self._ran(sizes(slot, subnet), subnet) for subnet in subnets], np.int32)
            total += float(
                np.mean(net.macs.soft(ran, self._all_of(slot)) if slot.mixture.names else net.macs(ran))
            )
        return total

    def _all_of(self, slot: Slot) -> dict[str, np.ndarray]:
        """Weights with which the cost of a mixture is that of all its operators, at full depth."""
        choices = [c for c in self.engine.net.space.choices if c.name in slot.mixture.names]
        return {c.name: np.eye(len(c))[-1] if c.ordered else np.ones(len(c)) for c in choices}

    def _ran(self, sizes: Channels, subnet: Channels) -> list[int]:
        """What is computed: as many channels as the form has, and the options that the subnet takes."""
        groups = len(self.engine.net.space.groups)
        return [*sizes[:groups], *subnet[groups:]]

    def sampled(self, count: int) -> Subnet:
        """int32 [count, R, G]: what `count` steps may be given, from the sample of what will be proposed."""
        moving = sum(slot.moves for slot in self.slots)
        rows = np.arange(count * moving) % max(1, len(self.draws))
        return self.draws[rows].reshape(count, moving, self.draws.shape[1])
