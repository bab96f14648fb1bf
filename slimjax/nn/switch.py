"""One of several branches, by a traced index, whose gradient keeps what the branch that runs needs, and little more.

For its backward pass `jax.lax.switch` keeps what each of its branches would want: arrays of the one that has run, and
as many zeros for each of the others. With eight operators that is eight times the memory, and the time to fill it. Here
branches share room: a place holds an array of the same shape from each branch that has one. And there are few: what
layers have marked (`saved`) is kept, and all else of a branch is computed again.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

SAVED = "saved"

Branch = Callable[..., tuple[Any, Any]]
"""Operands -> (result, what carries no gradient)."""


def saved(value: jax.Array) -> jax.Array:
    """Marks an intermediate result that costs much to compute, so that the backward pass of a branch has it."""
    return checkpoint_name(value, SAVED)


def switch(index: jax.Array, branches: Sequence[Branch], *operands: Any) -> tuple[Any, Any]:
    """`branches[index](*operands)`; only that branch runs, forward and backward. It has no forward mode (`jvp`).

    Args:
      index: int32 scalar, from 0 to len(branches) - 1.
      branches: all give the same shapes.
      operands: trees of arrays. The gradient is by these, not by arrays that a branch closes over.
    """
    real = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)  # noqa: E731
    moving = jax.tree.map(lambda leaf: leaf if real(leaf) else None, operands)
    still = jax.tree.map(lambda leaf: None if real(leaf) else leaf, operands)
    return _run(tuple(functools.partial(_joined, branch) for branch in branches), index, moving, still)


def _joined(branch: Branch, moving: Any, still: Any) -> tuple[Any, Any]:
    """A branch of what it is differentiated by and the rest: two trees with None where the other has the array."""
    either = lambda a, b: b if a is None else a  # noqa: E731
    return branch(*jax.tree.map(either, moving, still, is_leaf=lambda leaf: leaf is None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(branches: tuple[Branch, ...], index: jax.Array, moving: Any, still: Any) -> tuple[Any, Any]:
    return jax.lax.switch(index, branches, moving, still)


def _forward(
    branches: tuple[Branch, ...], index: jax.Array, moving: Any, still: Any
) -> tuple[tuple[Any, Any], _Kept]:
    # Jitted, because a branch is traced twice: for the shapes that it keeps, and to run.
    pieces = [jax.jit(functools.partial(_piece, branch), inline=True) for branch in branches]
    shapes = [jax.eval_shape(piece, moving, still) for piece in pieces]
    room = _Room.of([piece.arrays for piece in shapes])

    def filled(number: int, moving: Any, still: Any) -> tuple[tuple[Any, Any], list[jax.Array]]:
        piece = pieces[number](moving, still)
        return piece.result, room.put(number, piece.arrays)

    numbered = [functools.partial(filled, number) for number in range(len(pieces))]
    result, arrays = jax.lax.switch(index, numbered, moving, still)
    return result, _Kept(index, (moving, still), arrays, room, tuple(piece.pullback for piece in shapes))


def _backward(
    branches: tuple[Branch, ...], kept: _Kept, cotangents: tuple[Any, Any]
) -> tuple[None, Any, None]:
    def pulled(number: int, arrays: list[jax.Array], operands: Any, cotangent: Any) -> Any:
        return kept.pullbacks[number].of(kept.room.take(number, arrays), operands)(cotangent)[0]

    numbered = [functools.partial(pulled, number) for number in range(len(branches))]
    return None, jax.lax.switch(kept.index, numbered, kept.arrays, kept.operands, cotangents[0]), None


_run.defvjp(_forward, _backward)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class _Pullback:
    """A branch's pullback without its arrays.

    Args:
      tree: its structure.
      places: of each of its arrays among the branch's operands; None: it is no operand.
    """

    tree: Any
    places: tuple[int | None, ...]

    def of(self, arrays: Sequence[jax.Array], operands: Any) -> Callable[[Any], tuple[Any]]:
        """The pullback with its arrays: those that are no operands, in order."""
        given, own = jax.tree.leaves(operands), iter(arrays)
        leaves = [next(own) if place is None else given[place] for place in self.places]
        pullback: Callable[[Any], tuple[Any]] = jax.tree.unflatten(self.tree, leaves)
        return pullback


class _Piece(NamedTuple):
    """What a branch gives, and what its backward pass needs besides the operands."""

    result: tuple[Any, Any]
    arrays: list[jax.Array]
    pullback: _Pullback


def _piece(branch: Branch, moving: Any, still: Any) -> _Piece:
    kept = jax.checkpoint(branch, policy=jax.checkpoint_policies.save_only_these_names(SAVED))
    result, pullback, more = jax.vjp(lambda moving: kept(moving, still), moving, has_aux=True)
    leaves, tree = jax.tree.flatten(pullback)
    given = {id(leaf): place for place, leaf in enumerate(jax.tree.leaves((moving, still)))}
    places = tuple(given.get(id(leaf)) for leaf in leaves)
    own = [leaf for leaf, place in zip(leaves, places, strict=True) if place is None]
    return _Piece((result, more), own, _Pullback(tree, places))


@dataclasses.dataclass(frozen=True)
class _Room:
    """Places that the arrays of several branches share.

    Args:
      kinds: the shape that each place holds.
      places: by branch, of each of its arrays.
    """

    kinds: tuple[jax.ShapeDtypeStruct, ...]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, branches: Sequence[Sequence[jax.ShapeDtypeStruct]]) -> _Room:
        """As many places of a shape as the branch needs that needs the most."""
        kinds: dict[tuple[jax.ShapeDtypeStruct, int], int] = {}
        places = []
        for arrays in branches:
            counts: collections.Counter[jax.ShapeDtypeStruct] = collections.Counter()
            row = []
            for array in arrays:
                kind = array.update(weak_type=False)
                row.append(kinds.setdefault((kind, counts[kind]), len(kinds)))
                counts[kind] += 1
            places.append(tuple(row))
        return cls(tuple(kind for kind, _ in kinds), tuple(places))

    def put(self, number: int, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """What a branch leaves in all places: its own arrays, and zeros in those that only others need."""
        own = dict(zip(self.places[number], arrays, strict=True))
        return [own[place] if place in own else jnp.zeros_like(kind) for place, kind in enumerate(self.kinds)]

    def take(self, number: int, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """A branch's own arrays."""
        return [arrays[place] for place in self.places[number]]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["index", "operands", "arrays"],
    meta_fields=["room", "pullbacks"],
)
@dataclasses.dataclass(frozen=True)
class _Kept:
    """What the backward pass has of the forward pass."""

    index: jax.Array
    operands: Any
    arrays: list[jax.Array]
    room: _Room
    pullbacks: tuple[_Pullback, ...]
