"""Channels in another order: the network stays the same function, and other channels come first.

Subnets are leading slices. Whoever chooses channels by importance first brings the important ones to the front.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from slimjax.errors import BadValue
from slimjax.nn import arrays
from slimjax.nn.space import Space, Subnet
from slimjax.nn.trace import Records
from slimjax.nn.widths import Group

Order = Mapping[str, np.ndarray]
"""Group name to a permutation int [C] of its channels: the new channel c is the old channel order[c]."""


def order(
    records: Records, space: Space, importance: Mapping[str, Any], within: Subnet | None = None
) -> dict[str, np.ndarray]:
    """The order in which a channel comes the earlier, the more important it is; equal ones stay in their order.

    Groups whose channels meet by position, in a shortcut that pads or drops channels, have one order as far as both
    reach: a channel's importance is then the sum over these groups, and channels that only the wider ones have stay
    behind the others, ordered among themselves.

    Args:
      importance: group name to [C]; groups that are not named, and not tied to a named one, stay as they are.
      within: int32 [N, G], subnets that hold the same channels afterwards: channels are sorted between their ends only.

    Raises:
      BadValue: unknown groups, other shapes, entries that are not finite, or a group whose channels cannot change
        places because a grouped convolution interleaves them.
    """
    values = {name: _checked(space, name, value) for name, value in importance.items()}
    found: dict[str, np.ndarray] = {}
    for tied in _tied_by_position(records, space):
        if not any(group.name in values for group in tied):
            continue
        for group in tied:
            if where := _interleaved(records, group):
                raise BadValue(
                    "importance",
                    f"group {group.name!r} cannot be reordered: the grouped convolution {where} interleaves its "
                    "channels. Leave it out.",
                )
        kept: Iterable[int] = (
            [] if within is None else within[:, [space.index[group.name] for group in tied]].ravel()
        )
        joint = _joint_order(tied, values, kept)
        found |= {group.name: joint[: group.channels] for group in tied}
    return found


def permute(records: Records, order: Order, tree: Any) -> Any:
    """`tree` with all arrays of the network in the new order.

    Args:
      tree: variables, a training state with what its optimiser and its moving average keep, ... (see `arrays.change`).
    """

    def moved(place: arrays.Place, leaf: Any) -> Any:
        for position, axis in enumerate(place.axes):
            if isinstance(axis, Group) and axis.name in order:
                leaf = jnp.take(leaf, _entries(axis, order[axis.name]), axis=position)
        return leaf

    return arrays.change(records, moved, tree)


def _checked(space: Space, name: str, value: Any) -> np.ndarray:
    if name not in space.index:
        raise BadValue("importance", f"no group {name!r}. Groups of this network: {', '.join(space.index)}.")
    value, channels = np.asarray(value, np.float64), space.groups[space.index[name]].channels
    if value.shape != (channels,) or not np.isfinite(value).all():
        raise BadValue(
            "importance", f"group {name!r}: expected {channels} finite numbers, got shape {value.shape}."
        )
    return value


def _tied_by_position(records: Records, space: Space) -> list[list[Group]]:
    """The slimmable groups, together with those that their channels meet by position."""
    parent = {group.name: group.name for group in space.groups}

    def root(name: str) -> str:
        return name if parent[name] == name else root(parent[name])

    for record in records:
        if record.by_position and {record.in_group.name, record.out_group.name} <= set(parent):
            parent[root(record.in_group.name)] = root(record.out_group.name)
    tied: dict[str, list[Group]] = {}
    for group in space.groups:
        tied.setdefault(root(group.name), []).append(group)
    return list(tied.values())


def _interleaved(records: Records, group: Group) -> str | None:
    """The path of a grouped convolution that reads or makes the group's channels."""
    for record in records:
        if record.conv_groups > 1 and group.name in (record.in_group.name, record.out_group.name):
            return "/".join(record.path)
    return None


def _joint_order(
    tied: Sequence[Group], importance: Mapping[str, np.ndarray], kept: Iterable[int]
) -> np.ndarray:
    """int [C] of the widest of the tied groups: sorted within what the same groups, and slices, have in common."""
    joint = np.zeros(max(group.channels for group in tied))
    for group in tied:
        joint[: group.channels] += importance.get(group.name, 0.0)
    ends = sorted({0, *(group.channels for group in tied), *map(int, kept)})
    blocks = [low + np.argsort(-joint[low:high], kind="stable") for low, high in itertools.pairwise(ends)]
    return np.concatenate(blocks)


def _entries(axis: Group, channels: np.ndarray) -> np.ndarray:
    """The entries of an axis that has several for each channel of its group, next to each other."""
    times = int(axis.ratio)
    return (channels[:, None] * times + np.arange(times)[None]).ravel()
