"""A subnet's part of a supernet's arrays: cut out as a dense network of its own, or merged into those of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from slimjax.nn import arrays
from slimjax.nn.choices import Window, holds
from slimjax.nn.feature_map import axis_length, mask_axis, windows
from slimjax.nn.space import Space, Subnet
from slimjax.nn.trace import Records
from slimjax.nn.widths import Group


def cut(records: Records, space: Space, variables: Mapping[str, Any], subnet: Subnet) -> dict[str, Any]:
    """The variables of the dense network: every array holds its leading slices, and the middle of a window, only.

    Layers of options that are not chosen have none.

    `model.apply(cut(...), images, space.sliced(subnet), train=False)` runs it; the result equals the
    supernet's at that subnet bit for bit, and no weight outside the subnet is stored. To export the network,
    run it with `space.sliced(subnet, portable=True)`: equal to rounding, and free of what is for this CPU only.

    Args:
      variables: collections as the network is applied with them (`params`, `affine`, `batch_stats`);
        a collection that is absent stays absent.
    """
    entries = dict(zip(space.index, space.check(subnet).tolist(), strict=True))
    stored = traverse_util.flatten_dict(variables)
    flat: dict[tuple[str, ...], jax.Array] = {}
    for record in records:
        for array in record.arrays:
            if array.collection not in variables or not holds(record.under, entries):
                continue
            path = (array.collection, *record.path, array.name)
            value = stored[path]
            for position, axis in enumerate(array.axes):
                if isinstance(axis, Window):
                    value = axis.cut(value, position, entries[axis.choice.name])
            shape = tuple(axis_length(axis, entries) for axis in array.axes)
            flat[path] = jax.lax.slice(value, (0,) * len(shape), shape)
    return traverse_util.unflatten_dict(flat)


def merged(records: Records, space: Space, inside: Any, outside: Any, active: jax.Array | Subnet) -> Any:
    """The entries that a subnet uses from one pytree, all others of the network's arrays from another.

    Pure; `active` may be traced. An entry that is not taken cannot be seen in the result, even if it is NaN.

    Args:
      inside, outside: of one structure, with arrays of the network at full size (see `arrays.change`). Leaves that
        are not the network's are those of `inside`.
      active: int32 [G], the subnet.
    """
    widths, options = space.widths(space.largest, active), space.options(active)

    def pick(place: arrays.Place, value: jax.Array, other: jax.Array) -> jax.Array:
        for position, axis in enumerate(place.axes):
            if isinstance(axis, Group):
                value = mask_axis(value, widths.of(axis), position, other)
        for window, positions in windows(place.axes).items():
            middle = window.middles(value.shape, positions)[options[window.choice.name]]
            value = jnp.where(middle, value, other)
        return jnp.where(holds(place.under, options), value, other) if place.under else value

    return arrays.change(records, pick, inside, outside)
