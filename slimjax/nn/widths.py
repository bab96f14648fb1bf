"""Channel groups, width spaces, and the run-time width of a group.

A *subnet* is data: one int32 channel count per slimmable group of a space, in the space's order.
A `WidthSpace` turns it into the `Widths` a network is called with, in one of three forms:

- sliced:   static size n, no active count: a really small dense network;
- masked:   full size, traced active count: one compiled program for every subnet;
- bucketed: a rung's size >= n, traced active count: a few programs serve all widths.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.errors import UserError

Subnet = np.ndarray
"""int32 [G]: active channels of each slimmable group, in the order of `WidthSpace.groups`."""

Count = TypeVar("Count", int, np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """How a fractional channel count becomes an integer one. All three policies occur in the papers.

    - `make_divisible`: nearest multiple of `divisor`, one step up if that loses over 10 % (US-Net);
    - `truncate`: int(value) (Joslim, S-ResNet-50);
    - `multiple`: nearest multiple of `divisor`, at least one of them.
    """

    POLICIES: ClassVar = ("make_divisible", "truncate", "multiple")

    policy: str = "make_divisible"
    divisor: int = 8

    def __post_init__(self) -> None:
        if self.policy not in self.POLICIES:
            raise UserError(f"rounding: expected one of {', '.join(self.POLICIES)}, got {self.policy!r}.")
        if self.divisor < 1:
            raise UserError(f"rounding divisor: expected a positive integer, got {self.divisor}.")

    def __call__(self, value: float) -> int:
        return int(self.counts(value))

    def counts(self, values: float | np.ndarray) -> np.ndarray:
        """int64, shaped like `values`."""
        values = np.asarray(values, np.float64)
        if self.policy == "truncate":
            return np.maximum(1, np.trunc(values)).astype(np.int64)
        nearest = np.floor((values + self.divisor / 2) / self.divisor).astype(np.int64) * self.divisor
        if self.policy == "multiple":
            return np.maximum(self.divisor, nearest)
        # The papers' minimum is 1, not the divisor: it matters below half a divisor only.
        rounded = np.maximum(1, nearest)
        return rounded + self.divisor * (rounded < 0.9 * values)

    @property
    def step(self) -> int:
        """Distance between legal channel counts."""
        return 1 if self.policy == "truncate" else self.divisor


@dataclasses.dataclass(frozen=True)
class Group:
    """A named set of tensor axes that always have the same width, or a fixed multiple of it (`times`).

    Everything tied by a residual addition or a depthwise convolution is one group.

    Args:
      name: unique in the network.
      channels: the full size of the axis.
      unit: a uniform width w gives `unit * round(w * channels / unit)` channels: the expanded group of
        an inverted residual is `unit` times its (rounded) input (US-Net, MobileNetV2).
      fixed: never narrowed (image channels, class logits, US-Net's 1280-channel tail).
      multiple_of: every legal count is a multiple of it: grouped convolutions share channels out equally.
      ratio: entries of this axis for each channel of the group; made by `times`.

    Raises:
      UserError: counts that are not whole multiples, at full size or at some legal width.
    """

    name: str
    channels: int
    unit: int = 1
    fixed: bool = False
    multiple_of: int = 1
    ratio: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise UserError(f"group {self.name!r}: expected at least 1 channel, got {self.channels}.")
        total = self.channels / self.ratio
        if total % self.multiple_of:
            raise UserError(f"group {self.name!r}: expected a multiple of {self.multiple_of}, got {total}.")
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
        unit = math.lcm(self.unit, self.multiple_of)
        counts = np.minimum(
            self.channels, unit * rounding.counts(self.channels * np.asarray(fractions) / unit)
        )
        return np.where(np.equal(fractions, 1) | self.fixed, self.channels, counts)

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


@functools.partial(jax.tree_util.register_dataclass, data_fields=["groups"], meta_fields=["batch_axis"])
@dataclasses.dataclass(frozen=True)
class Widths(Mapping[str, Width]):
    """Group name to `Width`: what a network is called with. A group that is missing runs at its full size.

    Args:
      batch_axis: the mesh axis over which a batch is split, if the network runs on one device's part of it
        (inside `jax.shard_map`); None: it sees the whole batch.
    """

    groups: Mapping[str, Width] = dataclasses.field(default_factory=dict)
    batch_axis: str | None = None

    def __getitem__(self, name: str) -> Width:
        return self.groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


@dataclasses.dataclass(frozen=True)
class WidthSpace:
    """All subnets of a network: ordered slimmable groups with their rounding policy and range of widths.

    Args:
      max_width: the width that means full size. Above 1 where a paper counts widths from a network smaller
        than the largest that it trains (S-ShuffleNet: .5, 1 and 2).

    Raises:
      UserError: if `min_width` lies outside (0, max_width].
    """

    groups: tuple[Group, ...]
    rounding: Rounding = Rounding()
    min_width: float = 0.25
    max_width: float = 1.0

    def __post_init__(self) -> None:
        _check_width("min_width", self.min_width, low=0.0, high=self.max_width)
        object.__setattr__(self, "groups", tuple(g for g in self.groups if not g.fixed))

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Position of each group in a subnet."""
        return {group.name: i for i, group in enumerate(self.groups)}

    @functools.cached_property
    def largest(self) -> Subnet:
        return np.array([g.channels for g in self.groups], np.int32)

    @functools.cached_property
    def smallest(self) -> Subnet:
        return self.uniform(self.min_width)

    @functools.cached_property
    def lowest(self) -> Subnet:
        """The fewest channels of each group over all widths; below `smallest` in rare cases only.

        The published `make_divisible` is not monotone under half a divisor: 1.6 gives 9, and 4 gives 8.
        """
        widths = np.linspace(self.min_width, self.max_width, 1001)
        return np.array([self._at(g, widths).min() for g in self.groups], np.int32)

    def uniform(self, width: float) -> Subnet:
        """The subnet in which every group has the same width multiplier, `min_width` to `max_width`."""
        _check_width("width", width, self.min_width, self.max_width)
        return np.array([self._at(g, width) for g in self.groups], np.int32)

    def layerwise(self, widths: Sequence[float] | np.ndarray) -> Subnet:
        """Subnets int32 [..., G] with a width multiplier per group, [..., G], each `min_width` to `max_width`."""
        columns = np.moveaxis(np.asarray(widths), -1, 0)
        self._check_length(columns)
        for group, column in zip(self.groups, columns, strict=True):
            for end in (column.min(initial=self.max_width), column.max(initial=self.min_width)):
                _check_width(f"width of group {group.name!r}", end, self.min_width, self.max_width)
        counts = [self._at(g, column) for g, column in zip(self.groups, columns, strict=True)]
        return np.stack(counts, -1).astype(np.int32)

    def legal(self, group: Group) -> np.ndarray:
        """All legal channel counts of a group, ascending: multiples of its step, the fewest, and full size."""
        low, step = int(self.lowest[self.index[group.name]]), group.step(self.rounding)
        return np.unique([low, *range(-(-low // step) * step, group.channels, step), group.channels])

    def from_channels(self, channels: Mapping[str, int]) -> Subnet:
        """The subnet with the given channels; groups that are not named keep their full size."""
        if not isinstance(channels, Mapping):
            raise UserError(f'subnet: expected an object {{"group": channels}}, got {channels!r}.')
        if unknown := sorted(set(channels) - set(self.index)):
            raise UserError(
                f"subnet: unknown groups {unknown}. Groups of this network: {', '.join(self.index)}."
            )
        return self.check([channels.get(g.name, g.channels) for g in self.groups])

    def to_channels(self, subnet: Sequence[int] | Subnet) -> dict[str, int]:
        """Group name to channels: the readable form of a subnet."""
        return {g.name: int(n) for g, n in zip(self.groups, subnet, strict=True)}

    def check(self, subnet: Sequence[int] | Subnet) -> Subnet:
        """Returns the subnet as int32 [G].

        Raises:
          UserError: naming every group whose channel count is not legal, with the legal values.
        """
        self._check_length(subnet)
        bad = [
            f"{g.name}: {n!r} (legal: {low} to {g.channels} in steps of {g.step(self.rounding)})"
            for g, n, low in zip(self.groups, subnet, self.lowest, strict=True)
            if not self._legal(g, n, low)
        ]
        if bad:
            raise UserError("subnet: illegal channel counts: " + "; ".join(bad) + ".")
        return np.asarray(subnet, np.int32)

    def sliced(self, subnet: Sequence[int] | Subnet) -> Widths:
        """Widths of a dense network of just these channels."""
        return self.widths(subnet)

    def masked(self, subnet: jax.Array | Subnet) -> Widths:
        """Widths at full size with (possibly traced) active counts, int32 [G]."""
        return self.widths(self.largest, subnet)

    def bucketed(self, rung: Sequence[int] | Subnet, subnet: jax.Array | Subnet) -> Widths:
        """Widths at the sizes of `rung`, which must be at least `subnet`, with active counts int32 [G]."""
        return self.widths(rung, subnet)

    def widths(
        self,
        sizes: Sequence[int] | Subnet,
        active: jax.Array | Subnet | None = None,
        batch_axis: str | None = None,
    ) -> Widths:
        """Widths at static sizes [G], with active counts int32 [G] if given."""
        counts = [None] * len(self.groups) if active is None else jnp.asarray(active, jnp.int32)
        triples = zip(self.groups, sizes, counts, strict=True)
        return Widths({g.name: Width(int(size), count) for g, size, count in triples}, batch_axis)

    def _at(self, group: Group, width: float | np.ndarray) -> np.ndarray:
        return group.at(width / self.max_width, self.rounding)

    def _check_length(self, vector: Sequence[float] | Subnet) -> None:
        if len(vector) != len(self.groups):
            raise UserError(
                f"subnet: expected {len(self.groups)} entries ({', '.join(self.index)}), got {len(vector)}."
            )

    def _off_grid(self, group: Group) -> tuple[int, ...]:
        """Legal counts that need not be multiples of the step."""
        i = self.index[group.name]
        return int(self.lowest[i]), int(self.smallest[i]), group.channels

    def _legal(self, group: Group, channels: float, low: int) -> bool:
        whole = isinstance(channels, int | np.integer) and not isinstance(channels, bool)
        on_grid = whole and (channels % group.step(self.rounding) == 0 or channels in self._off_grid(group))
        return bool(on_grid and low <= channels <= group.channels)


def width_name(width: float) -> str:
    """The name of a switch, and of its collections: 0.25 gives "w0.25", 0.275 gives "w0.275"."""
    short = f"{width:.2f}"
    return "w" + (short if float(short) == width else repr(float(width)))


def named_width(name: str) -> float | None:
    """The width that `width_name` made the name from; None for any other name."""
    match = re.fullmatch(r"w(\d\.?[\de.-]*)", name)
    return float(match[1]) if match else None


def _check_width(what: str, width: float, low: float, high: float) -> None:
    number = isinstance(width, int | float | np.number) and not isinstance(width, bool)
    if not number or not math.isfinite(width) or not 0 < width <= high or width < low:
        raise UserError(f"{what}: expected a number from {low:g} to {high:g}, got {width!r}.")
