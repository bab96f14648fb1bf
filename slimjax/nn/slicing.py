"""Cutting a subnet out of a supernet: a dense network with only the channels it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from slimjax.nn.feature_map import axis_length
from slimjax.nn.space import Space, Subnet
from slimjax.nn.trace import Records


def cut(records: Records, space: Space, variables: Mapping[str, Any], subnet: Subnet) -> dict[str, Any]:
    """The variables of the dense network: every array holds its leading slices only.

    `model.apply(cut(...), images, space.sliced(subnet), train=False)` runs it; the result equals the
    supernet's at that subnet bit for bit, and no weight outside the subnet is stored. To export the network,
    run it with `space.sliced(subnet, portable=True)`: equal to rounding, and free of what is for this CPU only.

    Args:
      variables: collections as the network is applied with them (`params`, `affine`, `batch_stats`);
        a collection that is absent stays absent.
    """
    channels = space.to_channels(space.check(subnet))

    stored = traverse_util.flatten_dict(variables)
    flat: dict[tuple[str, ...], jax.Array] = {}
    for record in records:
        for array in record.arrays:
            if array.collection not in variables:
                continue
            path = (array.collection, *record.path, array.name)
            shape = tuple(axis_length(axis, channels) for axis in array.axes)
            flat[path] = jax.lax.slice(stored[path], (0,) * len(shape), shape)
    return traverse_util.unflatten_dict(flat)
