"""The space of all subnets of a network, and subnets themselves.

A *subnet* is data, never a module's attribute: one int32 entry for every axis of a space, in the space's order. The
axes so far are channel groups, whose entries are channels. A `Space` turns a subnet into the `Widths` that a network is
called with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.checks import check, number
from slimjax.errors import BadValue
from slimjax.nn.widths import MAKE_DIVISIBLE, Group, Rounding, Width, Widths

Subnet = np.ndarray
"""int32 [G]: an entry for every axis of a space, in its order: active channels of each slimmable group."""


@dataclasses.dataclass(frozen=True)
class Space:
    """All subnets of a network: its axes in order, with the rounding policy and the range of widths of the groups.

    An axis is what a subnet has an entry for: so far always a channel group. `len(space)` is the length of a subnet.

    Args:
      groups: slimmable ones, in the order of a subnet's entries; fixed ones are left out.
      max_width: the width that means full size. Above 1 where a paper counts widths from a network smaller
        than the largest that it trains (S-ShuffleNet: .5, 1 and 2).

    Raises:
      BadValue: if `min_width` lies outside (0, max_width].

    >>> from slimjax import Group, Rounding, Space
    >>> space = Space((Group("body", 32), Group("inner", 64)), Rounding("multiple", 8), min_width=0.25)
    >>> space.uniform(0.5).tolist(), space.from_channels({"inner": 24}).tolist()
    ([16, 32], [32, 24])
    """

    groups: tuple[Group, ...]
    rounding: Rounding = MAKE_DIVISIBLE
    min_width: float = 0.25
    max_width: float = 1.0

    def __post_init__(self) -> None:
        check("min_width", self.min_width, number(0, self.max_width, above=True))
        object.__setattr__(self, "groups", tuple(g for g in self.groups if not g.fixed))

    def __len__(self) -> int:
        """Axes: entries of a subnet."""
        return len(self.groups)

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
        check("width", width, number(self.min_width, self.max_width))
        return np.array([self._at(g, width) for g in self.groups], np.int32)

    def layerwise(self, widths: Sequence[float] | np.ndarray) -> Subnet:
        """Subnets int32 [..., G] with a width multiplier per group, [..., G], each `min_width` to `max_width`."""
        columns = np.moveaxis(np.asarray(widths), -1, 0)
        self._check_length(columns)
        for group, column in zip(self.groups, columns, strict=True):
            for end in (column.min(initial=self.max_width), column.max(initial=self.min_width)):
                check(f"width of group {group.name!r}", end, number(self.min_width, self.max_width))
        counts = [self._at(g, column) for g, column in zip(self.groups, columns, strict=True)]
        return np.stack(counts, -1).astype(np.int32)

    def legal(self, group: Group) -> np.ndarray:
        """All legal channel counts of a group, ascending: multiples of its step, the fewest, and full size."""
        low, step = int(self.lowest[self.index[group.name]]), group.step(self.rounding)
        return np.unique([low, *range(-(-low // step) * step, group.channels, step), group.channels])

    def from_channels(self, channels: Mapping[str, int]) -> Subnet:
        """The subnet with the given channels; groups that are not named keep their full size."""
        if not isinstance(channels, Mapping):
            raise BadValue("subnet", f'expected an object {{"group": channels}}, got {channels!r}.')
        if unknown := sorted(set(channels) - set(self.index)):
            raise BadValue(
                "subnet", f"unknown groups {unknown}. Groups of this network: {', '.join(self.index)}."
            )
        return self.check([channels.get(g.name, g.channels) for g in self.groups])

    def to_channels(self, subnet: Sequence[int] | Subnet) -> dict[str, int]:
        """Group name to channels: the readable form of a subnet."""
        return {g.name: int(n) for g, n in zip(self.groups, subnet, strict=True)}

    def check(self, subnet: Sequence[int] | Subnet) -> Subnet:
        """Returns the subnet as int32 [G].

        Raises:
          BadValue: naming every group whose channel count is not legal, with the legal values.
        """
        self._check_length(subnet)
        bad = [
            f"{g.name}: {n!r} (legal: {low} to {g.channels} in steps of {g.step(self.rounding)})"
            for g, n, low in zip(self.groups, subnet, self.lowest, strict=True)
            if not self._legal(g, n, low)
        ]
        if bad:
            raise BadValue("subnet", "illegal channel counts: " + "; ".join(bad) + ".")
        return np.asarray(subnet, np.int32)

    def sliced(self, subnet: Sequence[int] | Subnet, portable: bool = False) -> Widths:
        """Widths of a dense network of just these channels; `portable`: to be exported (`widths.Widths`)."""
        return dataclasses.replace(self.widths(subnet), portable=portable)

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
        counts = [None] * len(self) if active is None else jnp.asarray(active, jnp.int32)
        triples = zip(self.groups, sizes, counts, strict=True)
        return Widths({g.name: Width(int(size), count) for g, size, count in triples}, batch_axis)

    def _at(self, group: Group, width: float | np.ndarray) -> np.ndarray:
        return group.at(width / self.max_width, self.rounding)

    def _check_length(self, vector: Sequence[float] | Subnet) -> None:
        if len(vector) != len(self):
            raise BadValue(
                "subnet", f"expected {len(self)} entries ({', '.join(self.index)}), got {len(vector)}."
            )

    def _off_grid(self, group: Group) -> tuple[int, ...]:
        """Legal counts that need not be multiples of the step."""
        i = self.index[group.name]
        return int(self.lowest[i]), int(self.smallest[i]), group.channels

    def _legal(self, group: Group, channels: float, low: int) -> bool:
        whole = isinstance(channels, int | np.integer) and not isinstance(channels, bool)
        on_grid = whole and (channels % group.step(self.rounding) == 0 or channels in self._off_grid(group))
        return bool(on_grid and low <= channels <= group.channels)
