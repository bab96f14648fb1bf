"""Filters of a network by the channel that they make: their norms, for penalties and for importance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from slimjax.nn import slicing
from slimjax.nn.feature_map import Axis
from slimjax.nn.layers import DepthwiseConv
from slimjax.nn.space import Space, Subnet
from slimjax.nn.trace import LayerRecord, Records
from slimjax.nn.widths import Group


class Kernel(NamedTuple):
    """A kernel of a convolution into a slimmable group.

    Args:
      path: of the layer, and the array's name.
      axes: of the array; the last one is `group`, perhaps with several entries for each channel.
    """

    path: tuple[str, ...]
    axes: tuple[Axis, ...]
    group: Group


def kernels(records: Iterable[LayerRecord]) -> list[Kernel]:
    """All filters that make channels which can be cut: those of regular and of depthwise convolutions."""
    found = []
    for record in records:
        for array in record.arrays:
            group = array.axes[-1]
            if array.is_kernel and record.in_size and isinstance(group, Group) and not group.fixed:
                found.append(Kernel((*record.path, array.name), array.axes, group))
    return list(dict.fromkeys(found))


def norms(records: Iterable[LayerRecord], params: Mapping[str, Any], power: int = 2) -> dict[str, jax.Array]:
    """For each slimmable group, the norm of every channel's filters, float32 [C] in the order of its channels.

    A channel's filters are those of all convolutions into its group: several write to a residual stream, and a
    depthwise convolution keeps its input's group. They are kept or cut together, so their norm is that of all their
    weights together: the sum of |w| (power 1), or the root of the sum of w^2 (power 2).

    Args:
      params: kernels at full size.
    """
    leaves, sums = traverse_util.flatten_dict(params), dict[str, jax.Array]()
    for path, _, group in kernels(records):
        kernel = leaves[path]
        per_entry = (jnp.abs(kernel) ** power).reshape(-1, kernel.shape[-1]).sum(0)
        per_channel = per_entry.reshape(group.base.channels, -1).sum(1)
        sums[group.name] = sums.get(group.name, 0.0) + per_channel
    return {name: total if power == 1 else _root(total) for name, total in sums.items()}


def group_lasso(
    norms: Mapping[str, jax.Array],
    clip: float | jax.Array = math.inf,
    active: Mapping[str, int | jax.Array] | None = None,
) -> jax.Array:
    """The sum over groups l and channels i of min(||W_li||, delta_l), where delta_l = clip * mean_i ||W_li||.

    A channel whose norm is delta_l or more has no gradient; one below it has that of the plain lasso, W / ||W||, and
    one that is zero has none. So small channels shrink and large ones are left alone. The threshold follows the
    weights from step to step, but no gradient flows through it.

    Paper: Yang et al., Non-uniform DNN Structured Subnets Sampling, DAC 2020, equations 1 and 3 (weight penalty
    clipping).
    Differs: a norm is of a channel, not of one convolution's filter: see `norms`. That the threshold has no gradient
    is our reading of the word.
    Reduces to: the plain group lasso, where `clip` is infinite.

    Args:
      norms: of `norms`, at power 2.
      active: channels of each group that the mean is over, where the norms of all others are 0; None: all are.
    """
    total = jnp.zeros(())
    for name, norm in norms.items():
        mean = jax.lax.stop_gradient(norm.mean() if active is None else norm.sum() / active[name])
        threshold = jnp.where(mean > 0, clip * mean, 0.0)  # infinitely often nothing is nothing
        total += jnp.where(norm < threshold, norm, threshold).sum()
    return total


def lasso_penalty(
    records: Records, space: Space
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], jax.Array]:
    """`group_lasso` of a network's parameters, times a strength: ({"params", ...}, knobs) -> scalar.

    The knobs are {"strength", "clip"}, and perhaps "active" int32 [G]: then it is the group lasso of this subnet,
    as if it were a network of its own. Nothing outside of it counts, and nothing there has a gradient.
    """

    def penalty(trainable: Mapping[str, Any], knobs: Mapping[str, Any]) -> jax.Array:
        params, counts = trainable["params"], None
        if "active" in knobs:
            counts = {name: knobs["active"][i] for name, i in space.index.items()}
            params = within(records, space, params, knobs["active"])
        return knobs["strength"] * group_lasso(norms(records, params), knobs["clip"], counts)

    return penalty


def within(
    records: Records, space: Space, params: Mapping[str, Any], active: jax.Array | Subnet
) -> Mapping[str, Any]:
    """Parameters of a subnet, zeros elsewhere."""
    tree = {"params": params}
    return slicing.merged(records, space, tree, jax.tree.map(jnp.zeros_like, tree), active)["params"]


def _root(squares: jax.Array) -> jax.Array:
    """The square root, whose gradient at 0 is 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def gammas(records: Records, affine: Mapping[str, Any]) -> dict[str, jax.Array]:
    """For each slimmable group, the root of the sum of squares of every channel's gammas, float32 [C]."""
    leaves, sums = traverse_util.flatten_dict(affine), dict[str, jax.Array]()
    for record in records:
        path, group = (*record.path, "scale"), record.out_group
        if path in leaves and not group.fixed:
            per_channel = jnp.square(leaves[path]).reshape(group.base.channels, -1).sum(1)
            sums[group.name] = sums.get(group.name, 0.0) + per_channel
    return {name: _root(total) for name, total in sums.items()}


def depthwise_norms(records: Records, params: Mapping[str, Any]) -> dict[str, jax.Array]:
    """For each slimmable group, the L1 norm of every channel's depthwise filters, float32 [C].

    Paper: Hu et al., TF-NAS, ECCV 2020 (which channels elasticity-scaling keeps).
    Differs: a group without depthwise filters has the norm of all its filters.
    """
    depthwise = [record for record in records if record.kind == DepthwiseConv.__name__]
    return norms(records, params, power=1) | norms(depthwise, params, power=1)


Importance = Callable[[Records, Mapping[str, Any]], dict[str, jax.Array]]
"""(records, variables at full size) -> for each slimmable group, how important its channels are, float32 [C]."""

IMPORTANCES: Mapping[str, Importance] = MappingProxyType(
    {
        "l1": lambda records, variables: norms(records, variables["params"], power=1),
        "l2": lambda records, variables: norms(records, variables["params"], power=2),
        "gamma": lambda records, variables: gammas(records, variables["affine"]),
        "depthwise": lambda records, variables: depthwise_norms(records, variables["params"]),
    }
)
