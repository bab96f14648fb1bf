"""Common beginnings of subnets: what depends on the first groups only is the same for all that agree in them.

Subnets are leading slices, and a norm's statistics of the batch are each channel's own. So on one batch, with the same
weights, subnets that agree in all groups up to some module get the same feature map from it: it is computed
once. Of a thousand subnets of ResNet-20 some eighty differ in the first block, and three hundred in the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from slimjax.cost import counts
from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.space import Subnet
from slimjax.nn.trace import LayerRecord
from slimjax.nn.widths import Widths
from slimjax.step.state import Tree
from slimjax.supernet import Supernet

MOST_BOUNDARIES = 2


class Boundary(NamedTuple):
    """A place where a network is divided: after a top-level module.

    Args:
      module: its name.
      groups: columns of the groups, and choices, that its feature map depends on.
      later: columns of those that what comes after it depends on.
      layers: how many of the network's layers come before.
    """

    module: str
    groups: tuple[int, ...]
    later: tuple[int, ...]
    layers: int


def boundaries(net: Supernet) -> list[Boundary]:
    """All places to divide a network at, in its order: modules that are called once and give a feature map."""
    calls: list[tuple[str, Tree]] = []

    def listen(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        if len(context.module.path) == 1 and context.method_name == "__call__":
            calls.append((context.module.path[0], result))
        return result

    image = jax.ShapeDtypeStruct((2, *net.image_shape), jnp.float32)
    with nn.intercept_methods(listen):
        jax.eval_shape(lambda key, x: net.model.init(key, x, train=True), jax.random.key(0), image)
    names = [name for name, _ in calls]
    found = [
        _boundary(net, name)
        for name, result in calls
        if isinstance(result, FeatureMap) and names.count(name) == 1
    ]
    return [boundary for boundary in found if 0 < boundary.layers < len(net.records.layers)]


def choose(net: Supernet, draws: Subnet, most: int = MOST_BOUNDARIES) -> tuple[Boundary, ...]:
    """The boundaries, `most` at most, with which scoring the draws int32 [N, G] executes the fewest MACs; maybe none.

    Every beginning counts at full size, every end as it is. Where images have several resolutions there are none.
    """
    places = boundaries(net) if most and not net.space.static else []
    before = {boundary: macs_between(net, [boundary])[0] for boundary in places}
    after = {boundary: float(macs_after(net, [boundary])(draws).sum()) for boundary in places}
    distinct = {boundary: len(np.unique(draws[:, boundary.groups], axis=0)) for boundary in places}

    def expected(chain: Sequence[Boundary]) -> float:
        if not chain:
            return float(macs_after(net, ())(draws).sum())
        between = np.diff([0, *(before[boundary] for boundary in chain)])
        return float(np.dot([distinct[boundary] for boundary in chain], between)) + after[chain[-1]]

    chains = (itertools.combinations(places, count) for count in range(most + 1))
    return min(itertools.chain.from_iterable(chains), key=expected, default=())


def macs_after(net: Supernet, chain: Sequence[Boundary]) -> counts.Quadratic:
    """MACs of an image from the last boundary on, a function of subnets [..., G]."""
    return _macs(net, slice(chain[-1].layers if chain else 0, None))


def macs_between(net: Supernet, chain: Sequence[Boundary]) -> list[int]:
    """MACs of an image from each boundary's predecessor to it, at full size."""
    bounds = [0, *(boundary.layers for boundary in chain)]
    parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
    return [int(_macs(net, part)(net.space.largest)) for part in parts]


def without_earlier(net: Supernet, chain: Sequence[Boundary], subnets: Subnet) -> Subnet:
    """The subnets with all groups at full size that nothing after the last boundary depends on."""
    if not chain:
        return subnets
    wide = np.tile(net.space.largest, (len(subnets), 1))
    wide[:, chain[-1].later] = subnets[:, chain[-1].later]
    return wide


def in_order(chain: Sequence[Boundary], subnets: Subnet) -> tuple[np.ndarray, np.ndarray]:
    """An order [N] of the subnets in which those with common beginnings are neighbours, and from which boundary on each
    of them, in that order, has to be computed anew: [N], 0 for everything, len(chain) for nothing before the last."""
    keys = [subnets[:, boundary.groups] for boundary in chain]
    columns = np.concatenate([*keys, np.zeros((len(subnets), 1), np.int32)], axis=1)
    order = np.lexsort(columns.T[::-1])
    fresh = np.full(len(subnets), len(chain))
    for level, key in reversed(list(enumerate(keys))):
        differs = (np.diff(key[order], axis=0) != 0).any(axis=1)
        fresh[np.concatenate([[True], differs])] = level
    return order, fresh


def run(
    net: Supernet,
    variables: Tree,
    source: jax.Array,
    widths: Widths,
    begin: Boundary | None,
    end: Boundary | None,
) -> jax.Array:
    """The network from one boundary to another, in training mode: a feature map's value, or logits at the end.

    The whole network is traced; the compiler drops what the result does not depend on.

    Args:
      source: the value after `begin` [B, H, W, C], of full size or what `widths` says; images, if it is None.
    """
    reached: list[jax.Array] = []

    def listen(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        if context.method_name != "__call__" or len(context.module.path) != 1:
            return result
        if begin and context.module.path[0] == begin.module:
            result = result.with_value(source[..., : result.value.shape[-1]].astype(result.value.dtype))
        if end and context.module.path[0] == end.module:
            reached.append(result.value)
        return result

    images = source if begin is None else jnp.zeros((len(source), *net.image_shape), source.dtype)
    with nn.intercept_methods(listen):
        logits: Tree = net.apply(variables, images, widths, train=True)
    return reached[0] if end else logits


def _boundary(net: Supernet, name: str) -> Boundary:
    layers = net.records.layers
    own = [number for number, record in enumerate(layers) if record.path[0] == name]
    count = max(own) + 1 if own else 0
    before, after = (tuple(sorted(_groups(net, part))) for part in (layers[:count], layers[count:]))
    return Boundary(name, before, after, count)


def _groups(net: Supernet, layers: Sequence[LayerRecord]) -> set[int]:
    groups = {group for record in layers for group in (record.in_group, record.out_group) if not group.fixed}
    names = {group.name for group in groups} | {choice.name for record in layers for choice in record.choices}
    return {net.space.index[name] for name in names}


def _macs(net: Supernet, layers: slice) -> counts.Quadratic:
    return counts.macs(net.records.part(layers), net.space, counts.CONVENTIONS["plain"])
