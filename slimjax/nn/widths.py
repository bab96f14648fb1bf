"""Channel groups, and the width of a group at run time.

A group runs in one of three forms, in one code path: cut the arrays to the static size, mask them to the count.

- sliced:   static size n, no active count: a really small dense network;
- masked:   full size, traced active count: one compiled program for every subnet;
- bucketed: a rung's size >= n, traced active count: a few programs serve all widths.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.checks import check, integer, one_of
from slimjax.errors import UserError
from slimjax.nn.choices import Choice, Gate
from slimjax.nn.dropout import Dropout

Count = TypeVar("Count", int, np.ndarray, jax.Array)


TILE = 128
"""Channels that a TPU computes at once: 107 take as long as 128, and 136 twice as long."""


@dataclasses.dataclass(frozen=True)
class Rounding:
    """How a fractional channel count becomes an integer one. The first three policies occur in the papers.

    - `make_divisible`: nearest multiple of `divisor`, one step up if that loses over 10 % (US-Net);
    - `truncate`: int(value) (Joslim, S-ResNet-50);
    - `multiple`: nearest multiple of `divisor`, at least one of them;
    - `tile`: nearest whole tile, and up to one tile as `multiple`: what a TPU computes without waste.

    >>> from slimjax import Rounding
    >>> [Rounding(policy, 8)(0.35 * 32) for policy in Rounding.POLICIES]
    [16, 11, 8, 8]
    """

    POLICIES: ClassVar = ("make_divisible", "truncate", "multiple", "tile")

    policy: str = "make_divisible"
    divisor: int = 8

    def __post_init__(self) -> None:
        check("rounding", self.policy, one_of(*self.POLICIES))
        check("divisor", self.divisor, integer(1))

    def __call__(self, value: float) -> int:
        return int(self.counts(value))

    def counts(self, values: float | np.ndarray) -> np.ndarray:
        """int64, shaped like `values`."""
        values = np.asarray(values, np.float64)
        if self.policy == "truncate":
            return np.maximum(1, np.trunc(values)).astype(np.int64)
        step = np.where((self.policy == "tile") & (values > TILE), TILE, self.divisor)
        nearest = np.floor((values + step / 2) / step).astype(np.int64) * step
        if self.policy in ("multiple", "tile"):
            return np.maximum(self.divisor, nearest)
        # The papers' minimum is 1, not the divisor: it matters below half a divisor only.
        rounded = np.maximum(1, nearest)
        return rounded + self.divisor * (rounded < 0.9 * values)

    @property
    def step(self) -> int:
        """Distance between legal channel counts."""
        return 1 if self.policy == "truncate" else self.divisor


MAKE_DIVISIBLE = Rounding("make_divisible", 8)
"""US-Net's."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A named set of tensor axes that always have the same width, or a fixed multiple of it (`times`).

    Everything tied by a residual addition or a depthwise convolution is one group.

    Args:
      name: unique in the network.
      channels: the full size of the axis.
      quantum: a uniform width w gives `quantum * round(w * channels / quantum)` channels: the expanded group of
        an inverted residual is `quantum` times its (rounded) input (US-Net, MobileNetV2). Under "truncate" every group
        is rounded on its own, expanded ones too (Joslim).
      fixed: never narrowed (image channels, class logits, US-Net's 1280-channel tail).
      multiple_of: every legal count is a multiple of it: grouped convolutions share channels out equally.
      ratio: entries of this axis for each channel of the group; made by `times`.
      counts: the only legal ones, if not all that rounding gives; the last one is the full size.

    Raises:
      UserError: counts that are not whole multiples, at full size or at some legal width; or that do not rise to it.

    >>> from slimjax import Group, Rounding
    >>> int(Group("hidden", 96, quantum=6).at(0.5, Rounding("make_divisible", 8)))
    48
    """

    name: str
    channels: int
    quantum: int = 1
    fixed: bool = False
    multiple_of: int = 1
    ratio: Fraction = Fraction(1)
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise UserError(f"group {self.name!r}: expected at least 1 channel, got {self.channels}.")
        total = self.channels / self.ratio
        if total % self.multiple_of:
            raise UserError(f"group {self.name!r}: expected a multiple of {self.multiple_of}, got {total}.")
        if self.counts and (self.counts[0] < 1 or sorted({*self.counts, int(total)}) != list(self.counts)):
            raise UserError(
                f"group {self.name!r}: expected rising counts from 1 to {total}, got {list(self.counts)}."
            )
        if ((total if self.fixed else self.multiple_of) * self.ratio).denominator != 1:
            raise UserError(
                f"group {self.name!r}: {self.ratio} of its channels is not a whole number at every width. "
                f"Give it multiple_of={self.ratio.denominator}."
            )

    @property
    def base(self) -> Group:
        """The group itself, of which this axis has a multiple."""
        return dataclasses.replace(self, channels=int(self.channels / self.ratio), ratio=Fraction(1))

    def times(self, factor: int | Fraction) -> Group:
        """The axis that has `factor` times as many entries at every width: of the same name, so tied to it."""
        return dataclasses.replace(self, channels=int(self.channels * factor), ratio=self.ratio * factor)

    def entries(self, count: Count) -> Count:
        """Entries of this axis when its group has `count` channels."""
        if self.ratio == 1:
            return count
        return count * self.ratio.numerator // self.ratio.denominator

    def at(self, fractions: float | np.ndarray, rounding: Rounding) -> np.ndarray:
        """Channels at fractions, in (0, 1], of the full size; int64, shaped like them."""
        own = 1 if rounding.policy == "truncate" else self.quantum
        if (counts := self.only(rounding)) and not self.fixed:
            wanted = self.channels * np.asarray(fractions, np.float64)[..., None]
            return np.asarray(counts)[np.abs(wanted - counts).argmin(-1)]
        quantum = math.lcm(own, self.multiple_of)
        counts = np.minimum(
            self.channels, quantum * rounding.counts(self.channels * np.asarray(fractions) / quantum)
        )
        return np.where(np.equal(fractions, 1) | self.fixed, self.channels, counts)

    def only(self, rounding: Rounding) -> tuple[int, ...]:
        """The only legal counts, ascending, where they are not simply multiples of a step; empty: they are."""
        if self.counts or rounding.policy != "tile":
            return self.counts
        step, tile = (math.lcm(size, self.multiple_of) for size in (rounding.divisor, TILE))
        below, whole = range(step, min(tile, self.channels), step), range(tile, self.channels, tile)
        return (*below, *whole, self.channels)

    def step(self, rounding: Rounding) -> int:
        """Distance between legal channel counts."""
        return math.lcm(rounding.step, self.multiple_of)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["active"], meta_fields=["size"])
@dataclasses.dataclass(frozen=True)
class Width:
    """The width of a group at run time: a static size and, optionally, a traced count of active channels.

    `size` is part of the pytree's structure, so `jax.jit` keys its cache by sizes alone.
    """

    size: int
    active: jax.Array | None = None

    def mask(self) -> jax.Array | None:
        """bool [size], true for active channels; None where all are."""
        return None if self.active is None else jnp.arange(self.size) < self.active


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["groups", "gates", "dropout"],
    meta_fields=["batch_axis", "portable", "in_branch", "exact"],
)
@dataclasses.dataclass(frozen=True)
class Widths(Mapping[str, Width]):
    """Group name to `Width`: what a network is called with. A group that is missing runs at its full size.

    Args:
      gates: choice name to `Gate`; a choice that is missing takes its last option.
      batch_axis: the mesh axis over which a batch is split, if the network runs on one device's part of it
        (inside `jax.shard_map`); None: it sees the whole batch.
      dropout: what `heads.classify` does to the classifier's input; None: nothing.
      portable: every convolution is one plain convolution, on every platform: what a program that leaves this
        machine should hold. False: CPUs get their quick form (`convolution.convolve`).
      in_branch: the layers run in a branch of a switch, where CPUs need another form.
      exact: norms compute variances in two passes, whatever the batch: what is calibrated is kept.
    """

    groups: Mapping[str, Width] = dataclasses.field(default_factory=dict)
    batch_axis: str | None = None
    dropout: Dropout | None = None
    portable: bool = False
    in_branch: bool = False
    exact: bool = False
    gates: Mapping[str, Gate] = dataclasses.field(default_factory=dict)

    def of(self, axis: Group) -> Width:
        """The width of an axis: that of its group, times the axis's ratio."""
        width = self.groups.get(axis.name)
        if width is None:
            return Width(axis.channels)
        active = None if width.active is None else axis.entries(width.active)
        return Width(axis.entries(width.size), active)

    def gate(self, choice: Choice) -> Gate:
        """Which options of a choice run."""
        return self.gates.get(choice.name) or Gate(choice.last)

    def __getitem__(self, name: str) -> Width:
        return self.groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


def width_name(width: float) -> str:
    """The name of a switch, and of its collections: 0.25 gives "w0.25", 0.275 gives "w0.275"."""
    short = f"{width:.2f}"
    return "w" + (short if float(short) == width else repr(float(width)))


def named_width(name: str) -> float | None:
    """The width that `width_name` made the name from; None for any other name."""
    match = re.fullmatch(r"w(\d\.?[\de.-]*)", name)
    return float(match[1]) if match else None
