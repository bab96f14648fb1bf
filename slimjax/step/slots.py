"""What an algorithm says of a training step: its slots; and what a step is called with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax

from slimjax.nn.structure import NO_MIXTURE, Mixture
from slimjax.step.state import SHARED

Batch = Mapping[str, jax.Array]
"""Images uint8 [B, H, W, C] and labels int32 [B]; for testing also `weight` float32 [B]."""

Metrics = dict[str, jax.Array]
"""Scalars by name; those of a slot begin with its name and a slash."""


class Task(NamedTuple):
    """Fields of a slot that its gradient program depends on (`Slot`)."""

    target: str
    dropout: float = 0.0
    mixture: Mixture = NO_MIXTURE


@dataclasses.dataclass(frozen=True)
class Slot:
    """One subnet of a training step.

    Args:
      name: prefix of its metrics.
      subnet: channels, if they are the same in every step. None: the next row of the step's proposed subnets.
      affine: the gammas and betas it uses.
      stats: the collection that its batch statistics are averaged into; None: they are not kept.
      target: what it learns from: "labels", "teacher" (the first slot's detached softmax), or "both" (sum).
      dropout: probability with which an entry of its classifier's input is dropped.
      lasting: the proposed subnet stays for many steps, so that a program of its own pays.
      mixture: choices that run as a weighted sum of all their options, whatever the subnet has.
    """

    name: str
    subnet: tuple[int, ...] | None = None
    affine: str = SHARED
    stats: str | None = None
    target: str = "labels"
    dropout: float = 0.0
    lasting: bool = False
    mixture: Mixture = NO_MIXTURE

    @property
    def task(self) -> Task:
        """What its gradient program depends on besides sizes."""
        return Task(self.target, self.dropout, self.mixture)

    @property
    def moves(self) -> bool:
        """Whether each step proposes its subnet."""
        return self.subnet is None
