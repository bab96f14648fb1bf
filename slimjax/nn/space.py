"""The space of all subnets of a network, and subnets themselves.

A *subnet* is data, never a module's attribute: one int32 entry for every axis of a space, in the space's order. Channel
groups come first, whose entries are channels; then choices, whose entries are positions of options. A `Space` turns a
subnet into the `Widths` that a network is called with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.checks import check, number
from slimjax.errors import BadValue
from slimjax.nn.choices import Choice, Gate, Under, holds
from slimjax.nn.widths import MAKE_DIVISIBLE, Group, Rounding, Width, Widths

Subnet = np.ndarray
"""int32 [G]: an entry for every axis of a space, in its order: active channels of each slimmable group, then the
position of the option that each choice takes."""

Axis = Group | Choice
"""What a subnet has an entry for."""


@dataclasses.dataclass(frozen=True)
class Space:
    """All subnets of a network: its axes in order, with the rounding policy and the range of widths of the groups.

    An axis is what a subnet has an entry for. `len(space)` is the length of a subnet.

    Args:
      groups: slimmable ones, in the order of a subnet's entries; fixed ones are left out.
      choices: in the order of the entries after those.
      under: for axes that do not exist in every subnet, by name: the conditions under any of which they do. An
        entry of an axis that does not exist changes nothing, and is the lowest (`canonical`).
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
    choices: tuple[Choice, ...] = ()
    under: Mapping[str, tuple[Under, ...]] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check("min_width", self.min_width, number(0, self.max_width, above=True))
        object.__setattr__(self, "groups", tuple(g for g in self.groups if not g.fixed))

    def __len__(self) -> int:
        """Axes: entries of a subnet."""
        return len(self.axes)

    @functools.cached_property
    def axes(self) -> tuple[Axis, ...]:
        """In the order of a subnet's entries."""
        return (*self.groups, *self.choices)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Position of each axis in a subnet."""
        return {axis.name: i for i, axis in enumerate(self.axes)}

    @functools.cached_property
    def stages(self) -> dict[str, int]:
        """Number of each group's stage, from 1 in the network's order.

        A stage is what has one name up to the first "/": "stage1" and "stage1/block1" are in the same.
        """
        names = {group.name: group.name.partition("/")[0] for group in self.groups}
        number = {stage: i for i, stage in enumerate(dict.fromkeys(names.values()), 1)}
        return {name: number[stage] for name, stage in names.items()}

    @functools.cached_property
    def static(self) -> tuple[int, ...]:
        """Positions of the choices that are static in every form: subnets that differ there share no program."""
        return tuple(self.index[choice.name] for choice in self.choices if choice.static)

    @functools.cached_property
    def largest(self) -> Subnet:
        """All channels, and the last option of every choice."""
        return np.array([g.channels for g in self.groups] + [c.last for c in self.choices], np.int32)

    @functools.cached_property
    def smallest(self) -> Subnet:
        return self.uniform(self.min_width)

    @functools.cached_property
    def lowest(self) -> Subnet:
        """The fewest channels of each group over all widths, and first options; below `smallest` in rare cases only.

        The published `make_divisible` is not monotone under half a divisor: 1.6 gives 9, and 4 gives 8.
        """
        widths = np.linspace(self.min_width, self.max_width, 1001)
        return np.array([self._at(axis, widths).min() for axis in self.axes], np.int32)

    def uniform(self, width: float) -> Subnet:
        """The subnet in which every group has the same width multiplier, `min_width` to `max_width`.

        Options share this range equally: the first begins at the smallest width, the last ends at the largest. So do
        the counts of a group that lists them.
        """
        check("width", width, number(self.min_width, self.max_width))
        return self.canonical(np.array([self._at(axis, width) for axis in self.axes], np.int32))

    def layerwise(self, widths: Sequence[float] | np.ndarray) -> Subnet:
        """Subnets int32 [..., G] with a width multiplier per axis, [..., G], each `min_width` to `max_width`."""
        columns = np.moveaxis(np.asarray(widths), -1, 0)
        self._check_length(columns)
        for axis, column in zip(self.axes, columns, strict=True):
            for end in (column.min(initial=self.max_width), column.max(initial=self.min_width)):
                check(f"width of {axis.name!r}", end, number(self.min_width, self.max_width))
        counts = [self._at(axis, column) for axis, column in zip(self.axes, columns, strict=True)]
        return self.canonical(np.stack(counts, -1).astype(np.int32))

    def legal(self, axis: Axis) -> np.ndarray:
        """All legal entries of an axis, ascending: positions of options; or channels that are multiples of the group's
        step, the fewest, and full size."""
        if isinstance(axis, Choice):
            return np.arange(len(axis))
        if counts := axis.only(self.rounding):
            fewest = int(self.lowest[self.index[axis.name]])
            return np.array([count for count in counts if count >= fewest])
        low, step = int(self.lowest[self.index[axis.name]]), axis.step(self.rounding)
        return np.unique([low, *range(-(-low // step) * step, axis.channels, step), axis.channels])

    def random(self, count: int, seed: int) -> Subnet:
        """int32 [count, G]: each group's channels, and each choice's option, drawn evenly from the legal ones."""
        generator = np.random.default_rng(seed)
        columns = [generator.choice(self.legal(axis), count) for axis in self.axes]
        return self.canonical(np.stack(columns, -1).astype(np.int32))

    def canonical(self, subnets: Subnet) -> Subnet:
        """Subnets int32 [..., G] in which axes that do not exist have their lowest entry, which changes nothing.

        Two subnets are the same network if, and only if, they are equal then.
        """
        if not self.under:
            return subnets
        exists = self.exists(subnets)
        return np.where(exists, subnets, self.lowest).astype(np.int32)

    def exists(self, subnets: Subnet) -> np.ndarray:
        """bool [..., G]: the axes that subnets int32 [..., G] have."""
        options, result = self.options(subnets), np.ones(subnets.shape, bool)
        for name, alternatives in self.under.items():
            met = [holds(under, options) for under in alternatives]
            result[..., self.index[name]] = np.logical_or.reduce(met)
        return result

    def options(self, subnets: Any) -> dict[str, Any]:
        """Positions of the options that subnets int32 [..., G] choose: int32 [...] by the choices' names."""
        return {choice.name: subnets[..., self.index[choice.name]] for choice in self.choices}

    def from_channels(self, channels: Mapping[str, int | str]) -> Subnet:
        """The subnet with the given channels of groups and names of options of choices.

        What is not named keeps its full size, or takes its last option.
        """
        if not isinstance(channels, Mapping):
            raise BadValue("subnet", f'expected an object {{"group": channels}}, got {channels!r}.')
        if unknown := sorted(set(channels) - set(self.index)):
            raise BadValue(
                "subnet", f"unknown groups {unknown}. Groups of this network: {', '.join(self.index)}."
            )
        counts: list[Any] = [channels.get(group.name, group.channels) for group in self.groups]
        chosen = [channels.get(choice.name, choice.options[-1]) for choice in self.choices]
        positions = [_position(*pair) for pair in zip(self.choices, chosen, strict=True)]
        return self.canonical(self.check([*counts, *positions]))

    def to_channels(self, subnet: Sequence[int] | Subnet) -> dict[str, int | str]:
        """Group name to channels, and choice name to option, of all axes that it has: the readable form of a subnet."""
        self._check_length(subnet)
        exists = self.exists(np.asarray(subnet))
        return {
            axis.name: axis.options[entry] if isinstance(axis, Choice) else int(entry)
            for axis, entry, there in zip(self.axes, subnet, exists, strict=True)
            if there
        }

    def check(self, subnet: Sequence[int] | Subnet) -> Subnet:
        """Returns the subnet as int32 [G].

        Raises:
          BadValue: naming every group whose channel count is not legal, with the legal values.
        """
        self._check_length(subnet)
        entries = zip(self.axes, subnet, self.lowest, strict=True)
        bad = [
            f"{axis.name}: {n!r} (legal: {self._described(axis, low)})"
            for axis, n, low in entries
            if not self._legal(axis, n, low)
        ]
        if bad:
            raise BadValue("subnet", "illegal channel counts: " + "; ".join(bad) + ".")
        return np.asarray(subnet, np.int32)

    def sliced(self, subnet: Sequence[int] | Subnet, portable: bool = False) -> Widths:
        """Widths of a dense network of just these channels; `portable`: to be exported (`widths.Widths`)."""
        return dataclasses.replace(self.widths(subnet), portable=portable)

    def covering(self, subnets: Subnet) -> Subnet:
        """The largest sizes int32 [..., G] at which subnets can run: full size, but for what is static always."""
        sizes = np.broadcast_to(self.largest, np.shape(subnets)).copy()
        sizes[..., self.static] = subnets[..., self.static]
        return sizes

    def masked(self, subnet: jax.Array | Subnet) -> Widths:
        """Widths at full size with (possibly traced) active counts, int32 [G].

        A traced subnet of a space with static choices needs `widths`, with the sizes that `covering` gives.
        """
        return self.widths(self.covering(np.asarray(subnet)) if self.static else self.largest, subnet)

    def bucketed(self, rung: Sequence[int] | Subnet, subnet: jax.Array | Subnet) -> Widths:
        """Widths at the sizes of `rung`, which must be at least `subnet`, with active counts int32 [G].

        Of static choices it must have the subnet's options.
        """
        return self.widths(rung, subnet)

    def widths(
        self,
        sizes: Sequence[int] | Subnet,
        active: jax.Array | Subnet | None = None,
        batch_axis: str | None = None,
    ) -> Widths:
        """Widths at static sizes [G], with active counts int32 [G] if given."""
        counts = [None] * len(self) if active is None else jnp.asarray(active, jnp.int32)
        entries = list(zip(self.axes, map(int, sizes), counts, strict=True))
        groups = {axis.name: Width(size, count) for axis, size, count in entries if isinstance(axis, Group)}
        gates = {
            axis.name: Gate(size, None if axis.static else count)
            for axis, size, count in entries
            if isinstance(axis, Choice)
        }
        return Widths(groups, batch_axis, gates=gates)

    def _at(self, axis: Axis, width: float | np.ndarray) -> np.ndarray:
        if isinstance(axis, Group) and not axis.counts:
            return axis.at(width / self.max_width, self.rounding)
        entries = np.array(axis.counts) if isinstance(axis, Group) else np.arange(len(axis))
        if self.min_width == self.max_width:
            return np.full(np.shape(width), entries[-1])
        span = (np.asarray(width) - self.min_width) / (self.max_width - self.min_width)
        return entries[np.minimum(np.int64(span * len(entries)), len(entries) - 1)]

    def _check_length(self, vector: Sequence[float] | Subnet) -> None:
        if len(vector) != len(self):
            raise BadValue(
                "subnet", f"expected {len(self)} entries ({', '.join(self.index)}), got {len(vector)}."
            )

    def _described(self, axis: Axis, low: int) -> str:
        """The legal entries of an axis, in words."""
        if isinstance(axis, Choice):
            return f"0 to {axis.last}, for {', '.join(axis.options)}"
        if axis.only(self.rounding):
            return ", ".join(map(str, self.legal(axis)))
        return f"{low} to {axis.channels} in steps of {axis.step(self.rounding)}"

    def _off_grid(self, group: Group) -> tuple[int, ...]:
        """Legal counts that need not be multiples of the step."""
        i = self.index[group.name]
        return int(self.lowest[i]), int(self.smallest[i]), group.channels

    def _legal(self, axis: Axis, entry: float, low: int) -> bool:
        if not isinstance(entry, int | np.integer) or isinstance(entry, bool):
            return False
        if isinstance(axis, Choice) or axis.only(self.rounding):
            return bool(np.isin(entry, self.legal(axis)))
        on_grid = entry % axis.step(self.rounding) == 0 or entry in self._off_grid(axis)
        return bool(on_grid and low <= entry <= axis.channels)


def _position(choice: Choice, option: object) -> int:
    if not isinstance(option, str):
        raise BadValue(
            "subnet", f"{choice.name}: expected one of {', '.join(choice.options)}, got {option!r}."
        )
    return choice.position(option)
