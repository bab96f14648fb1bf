"""What flows between layers: an activation that knows its channel group."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from slimjax.nn.choices import Window
from slimjax.nn.widths import Group, Width, Widths

Axis = int | Group | Window
"""One axis of a declared array: a plain length, a group that can be narrowed, or the side of a kernel that can."""


def axis_length(axis: Axis, entries: Mapping[str, int]) -> int:
    """Active entries of an axis, at a subnet's entries: channels of groups, positions of options, by name."""
    if isinstance(axis, Window):
        return axis.sizes[entries[axis.choice.name]]
    if not isinstance(axis, Group):
        return axis
    return axis.channels if axis.fixed else axis.entries(entries[axis.name])


def full_length(axis: Axis) -> int:
    """Entries of an axis at full size."""
    if isinstance(axis, Window):
        return axis.full
    return axis.channels if isinstance(axis, Group) else axis


def static_length(axis: Axis, widths: Widths) -> int:
    """Entries of an axis in a program at these widths."""
    if isinstance(axis, Window):
        return axis.sizes[widths.gate(axis.choice).top]
    return widths.of(axis).size if isinstance(axis, Group) else axis


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value", "widths"], meta_fields=["group"])
@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """An activation, the group of its last axis, and the widths of all groups.

    Invariant: inactive channels are exactly zero. `map` keeps it, whatever the function does to zeros.

    >>> import jax.numpy as jnp
    >>> from slimjax import FeatureMap
    >>> FeatureMap.of(jnp.ones((2, 8, 8, 3))).map(lambda value: 2 * value).value.shape
    (2, 8, 8, 3)
    """

    value: jax.Array
    group: Group
    widths: Widths

    @classmethod
    def of(cls, image: jax.Array, widths: Widths | None = None) -> FeatureMap:
        """Starts a network from images [B, H, W, C]; `widths=None` runs every group at full size."""
        return cls(image, Group("image", image.shape[-1], fixed=True), Widths() if widths is None else widths)

    def width_of(self, group: Group) -> Width:
        """The width of an axis (`Widths.of`)."""
        return self.widths.of(group)

    def map(self, function: Callable[[jax.Array], jax.Array]) -> FeatureMap:
        """Applies an elementwise or pooling function; inactive channels stay zero."""
        return self.with_value(mask_axis(function(self.value), self.width_of(self.group), -1))

    def with_value(self, value: jax.Array, group: Group | None = None) -> FeatureMap:
        return dataclasses.replace(self, value=value, group=group or self.group)

    def __add__(self, other: FeatureMap) -> FeatureMap:
        return self.with_value(self.value + self._tied(other, "add").value)

    def __mul__(self, other: FeatureMap) -> FeatureMap:
        return self.with_value(self.value * self._tied(other, "multiply").value)

    def _tied(self, other: FeatureMap, verb: str) -> FeatureMap:
        if self.group != other.group:
            raise TypeError(
                f"cannot {verb} feature maps of different groups: {self.group.name!r} "
                f"({self.group.channels} channels) and {other.group.name!r} ({other.group.channels}). "
                "Give the layers that meet here the same group."
            )
        return other


def narrow(value: jax.Array, axes: Sequence[Axis], widths: Widths) -> jax.Array:
    """An array cut to the static sizes of its axes, then masked: entries outside the subnet are gone, or 0."""
    for position, axis in enumerate(axes):
        if isinstance(axis, Group):
            width = widths.of(axis)
            value = jax.lax.slice_in_dim(value, 0, width.size, axis=position)
            value = mask_axis(value, width, position)
    for window, positions in windows(axes).items():
        value = window.narrow(value, positions, widths.gate(window.choice))
    return value


def windows(axes: Sequence[Axis]) -> dict[Window, list[int]]:
    """The windows among axes, each with the positions of those that it is."""
    found: dict[Window, list[int]] = {}
    for position, axis in enumerate(axes):
        if isinstance(axis, Window):
            found.setdefault(axis, []).append(position)
    return found


def mask_axis(value: jax.Array, width: Width, axis: int, other: jax.Array | None = None) -> jax.Array:
    """The inactive entries of one axis are 0, or another array's; the identity where the width has no active count."""
    mask = width.mask()
    if mask is None:
        return value
    shape = [1] * value.ndim
    shape[axis] = mask.size
    return jnp.where(mask.reshape(shape), value, jnp.zeros((), value.dtype) if other is None else other)
