"""Choices: axes of a space whose entries are options, and the gate of a choice at run time.

A choice runs in one of three forms, as a group does (`widths`):

- static:  one option; the others are not in the program;
- traced:  a traced index: one program for every option up to the static one;
- soft:    weights over all options: the sum of weight times branch. For differentiable search.

A choice that changes shapes, such as the resolution of the images, is static always: its options have programs of
their own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Choice:
    """A named slot with options: the operator of a block, the depth of a stage, the side of a kernel.

    Args:
      name: unique in the network, among its groups, too.
      options: their names, from the smallest to the largest as far as they have an order.
      ordered: neighbours are alike, as depths and kernel sizes are, and operators are not. Searches use it.
      static: it has the static form only.

    Raises:
      UserError: no options, or two of one name.

    >>> from slimjax import Choice
    >>> Choice("stage1/depth", ("2", "3", "4")).position("3")
    1
    """

    name: str
    options: tuple[str, ...]
    ordered: bool = True
    static: bool = False

    def __post_init__(self) -> None:
        if not self.options or len(set(self.options)) < len(self.options):
            raise UserError(f"choice {self.name!r}: expected different options, got {list(self.options)}.")

    def __len__(self) -> int:
        return len(self.options)

    @property
    def last(self) -> int:
        """Position of the largest option: what a full network has."""
        return len(self.options) - 1

    def position(self, option: str) -> int:
        """Of an option's name. Raises: UserError: it has none of this name."""
        if option not in self.options:
            raise UserError(
                f"choice {self.name!r}: expected one of {', '.join(self.options)}, got {option!r}."
            )
        return self.options.index(option)


class When(NamedTuple):
    """A condition: a choice takes one of some options, given by their positions."""

    choice: Choice
    options: tuple[int, ...]


Under = tuple[When, ...]
"""Conditions that all have to hold; none: always."""


def holds(under: Under, options: Mapping[str, Any]) -> Any:
    """Whether conditions hold: a bool, or bool [...], for options (positions, int [...]) by the choices' names."""
    result: Any = True
    for choice, allowed in under:
        chosen = options[choice.name]
        result = result & functools.reduce(lambda a, b: a | b, (chosen == option for option in allowed))
    return result


def share(under: Under, weights: Mapping[str, Any]) -> Any:
    """The weight [...] of what runs under conditions, where choices have weights [..., options] by their names."""
    result: Any = 1.0
    for choice, allowed in under:
        result = result * sum(weights[choice.name][..., option] for option in allowed)
    return result


@dataclasses.dataclass(frozen=True)
class Window:
    """The side of a kernel that a choice sets: the middle `sizes[option]` of its largest number of entries.

    Paper: Yu et al., BigNAS, ECCV 2020 (smaller kernels are the middle of larger ones).

    Raises:
      UserError: sizes that do not rise, that have no common middle, or are not one for each option.
    """

    choice: Choice
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        odd = all((size - self.sizes[0]) % 2 == 0 for size in self.sizes)
        if len(self.sizes) != len(self.choice) or list(self.sizes) != sorted(set(self.sizes)) or not odd:
            raise UserError(
                f"window of choice {self.choice.name!r}: expected {len(self.choice)} rising sizes, all odd or all "
                f"even, got {list(self.sizes)}."
            )

    @property
    def full(self) -> int:
        """Entries of the largest."""
        return self.sizes[-1]

    def cut(self, value: jax.Array, position: int, option: int) -> jax.Array:
        """The middle of one axis, at a static option; cut out before, it passes through."""
        size = self.sizes[option]
        start = (value.shape[position] - size) // 2
        return jax.lax.slice_in_dim(value, start, start + size, axis=position)

    def narrow(self, value: jax.Array, positions: Sequence[int], gate: Gate) -> jax.Array:
        """All axes that are this window, cut to the gate's static option; beyond the traced one there are zeros.

        With weights it is the sum of weight times the array at each option.
        """
        for position in positions:
            value = self.cut(value, position, gate.top)
        if gate.is_static:
            return value
        middles = self.middles(value.shape, positions)
        if gate.index is not None:
            return jnp.where(middles[gate.index], value, jnp.zeros((), value.dtype))
        assert gate.weights is not None
        return value * jnp.tensordot(gate.weights, middles, 1).astype(value.dtype)

    def middles(self, shape: Sequence[int], positions: Sequence[int]) -> jax.Array:
        """bool [options, ...], to be met with an array of this shape: the entries that each option has."""
        inside = np.ones((), bool)
        for position in positions:
            distance = np.abs(2 * np.arange(shape[position]) + 1 - shape[position])
            spread = [1] * len(shape)
            spread[position] = shape[position]
            inside = inside & (distance[None] < np.array(self.sizes)[:, None]).reshape(-1, *spread)
        return jnp.asarray(inside)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["index", "weights"], meta_fields=["top"])
@dataclasses.dataclass(frozen=True)
class Gate:
    """Which options of a choice run.

    Args:
      top: position of the largest option that is in the program.
      index: int32 scalar, traced: the option that runs, at most `top`.
      weights: [options], traced: all run, and are added with these weights. Neither: `top` runs.
    """

    top: int
    index: jax.Array | None = None
    weights: jax.Array | None = None

    @property
    def is_static(self) -> bool:
        return self.index is None and self.weights is None
