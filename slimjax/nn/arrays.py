"""The arrays of a network in any pytree: variables, gradients, a training state with what its optimiser keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from slimjax.nn.choices import Under
from slimjax.nn.feature_map import Axis
from slimjax.nn.trace import Records

STRUCTURE = "structure"
"""The collection of structure parameters (`structure`)."""

ALPHAS = "alphas"
"""Name of those in it that belong to channels: group name to [C]."""

CHOICES = "choices"
"""Name of those that belong to options: choice name to [options]."""

COLLECTIONS = ("params", "affine", "batch_stats", STRUCTURE)

Change = Callable[..., jax.Array]
"""(`Place` of an array, the array, those in its place in other trees) -> what comes in its place."""


class Place(NamedTuple):
    """What a network's array is: its axes, and the choices' options under which it is used."""

    axes: tuple[Axis, ...]
    under: Under = ()


def change(records: Records, function: Change, tree: Any, *others: Any) -> Any:
    """`tree` with all arrays of the network changed.

    Args:
      tree: any pytree. A leaf is one of the network's if its path ends with a collection's name, perhaps the name of a
        set ("shared", "w0.25"), the path of a layer and the array's name; or with the name of the structure parameters,
        of those that belong to channels, and of a group. Other leaves stay as they are.
      others: trees of the same structure.
    """
    places = _places(records)

    def changed(path: Sequence[Any], leaf: Any, *rest: Any) -> Any:
        found = places.get(_named(path)) or places.get(_named(path, in_set=True))
        return leaf if found is None else function(found, leaf, *rest)

    return jax.tree_util.tree_map_with_path(changed, tree, *others)


def _places(records: Records) -> dict[tuple[str, ...], Place]:
    """By collection, path and name of each array; structure parameters of channels by their group."""
    groups = {group.base for record in records for group in (record.in_group, record.out_group)}
    alphas = {(STRUCTURE, ALPHAS, group.name): Place((group,)) for group in groups}
    return alphas | {
        (array.collection, *record.path, array.name): Place(array.axes, record.under)
        for record in records
        for array in record.arrays
    }


def _named(path: Sequence[Any], in_set: bool = False) -> tuple[str, ...]:
    """Collection, layer and name at the end of a leaf's path; without the set's name, if there is one."""
    words = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
    last = max((i for i, word in enumerate(words) if word in COLLECTIONS), default=len(words))
    return (*words[last : last + 1], *words[last + 1 + in_set :])
