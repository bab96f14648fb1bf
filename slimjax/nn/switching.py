"""A switch between branches that is cheap to differentiate."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Branch = Callable[..., Any]


def switch(index: jax.Array, branches: Sequence[Branch], *operands: Any) -> Any:
    """`jax.lax.switch`, whose forward pass saves what the branch that ran needs, in places that all branches share.

    JAX's own keeps a place for whatever any branch would have saved, and fills those of the others with zeros: with
    eight operators it writes several times as much. Here branches have places of one shape in common. Operands are not
    saved again. Where a branch does not use an operand, its gradient is exactly zero. There is a reverse mode only.

    Args:
      index: int32 scalar, in range.
      branches: `(*operands) -> result`, all of one structure of floats.
      operands: pytrees of arrays; branches must not close over traced floats.
    """
    leaves, tree = jax.tree.flatten(operands)

    @jax.custom_vjp
    def run(index: jax.Array, leaves: list[jax.Array]) -> Any:
        return jax.lax.switch(index, [functools.partial(called, branch) for branch in branches], *leaves)

    def called(branch: Branch, *leaves: jax.Array) -> Any:
        return branch(*jax.tree.unflatten(tree, leaves))

    def forward(index: Any, leaves: list[Any]) -> Any:
        values = [leaf.value for leaf in leaves]
        moving = tuple(i for i, leaf in enumerate(leaves) if leaf.perturbed)
        plans = [_Plan.of(functools.partial(called, branch), values, moving) for branch in branches]
        places = _Places.of(plans)
        result, saved = jax.lax.switch(index.value, places.forward, values)
        return result, (index.value, values, saved, places)

    def backward(kept: Any, gradient: Any) -> Any:
        index, values, saved, places = kept
        gradient = jax.tree.map(_instantiated, gradient, is_leaf=_is_symbolic)
        found = jax.lax.switch(index, places.backward, values, saved, gradient)
        by_leaf = dict(zip(places.moving, found, strict=True))
        return None, [by_leaf.get(i) for i in range(len(values))]

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(index, leaves)


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """What a branch's forward pass saves, and how its gradient is put together from that.

    Args:
      moving: positions of the operands that it is differentiated by.
      tree: of the pullback.
      operands: for each leaf of the pullback, the position of the operand that it is; None: it has to be saved.
      types: of what has to be saved, in order.
    """

    function: Branch
    moving: tuple[int, ...]
    tree: Any
    operands: tuple[int | None, ...]
    types: tuple[Any, ...]

    @classmethod
    def of(cls, function: Branch, values: Sequence[jax.Array], moving: tuple[int, ...]) -> _Plan:
        seen: dict[str, Any] = {}

        def trace(values: Sequence[jax.Array]) -> None:
            _, leaves, seen["tree"] = _pulled(function, values, moving)
            place = {id(value): i for i, value in enumerate(values)}
            seen["operands"] = tuple(place.get(id(leaf)) for leaf in leaves)
            seen["types"] = tuple(jax.typeof(leaf) for leaf in leaves)

        jax.eval_shape(trace, values)
        saved = zip(seen["types"], seen["operands"], strict=True)
        types = tuple(kind for kind, operand in saved if operand is None)
        return cls(function, moving, seen["tree"], seen["operands"], types)

    def forward(self, values: Sequence[jax.Array]) -> tuple[Any, list[jax.Array]]:
        """The branch's result, and what has to be saved."""
        result, leaves, _ = _pulled(self.function, values, self.moving)
        pairs = zip(leaves, self.operands, strict=True)
        return result, [leaf for leaf, operand in pairs if operand is None]

    def backward(self, values: Sequence[jax.Array], saved: Iterator[jax.Array], gradient: Any) -> list[Any]:
        """Gradients by the moving operands."""
        leaves = [next(saved) if operand is None else values[operand] for operand in self.operands]
        return list(jax.tree.unflatten(self.tree, leaves)(gradient))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class _Places:
    """Where the branches save: places of each type, as many as the branch needs that needs most of it."""

    plans: tuple[_Plan, ...]
    types: tuple[Any, ...]

    @classmethod
    def of(cls, plans: Sequence[_Plan]) -> _Places:
        most: collections.Counter[Any] = collections.Counter()
        for plan in plans:
            most |= collections.Counter(plan.types)
        return cls(tuple(plans), tuple(most.elements()))

    @property
    def moving(self) -> tuple[int, ...]:
        return self.plans[0].moving

    @property
    def forward(self) -> list[Branch]:
        """`(operands) -> (result, what is saved)`."""
        return [functools.partial(self._save, plan) for plan in self.plans]

    @property
    def backward(self) -> list[Branch]:
        """`(operands, what was saved, gradient of the result) -> gradients by the moving operands`."""
        return [functools.partial(self._load, plan) for plan in self.plans]

    def _save(self, plan: _Plan, values: Sequence[jax.Array]) -> tuple[Any, list[jax.Array]]:
        result, saved = plan.forward(values)
        waiting: dict[Any, list[jax.Array]] = {}
        for kind, value in zip(plan.types, saved, strict=True):
            waiting.setdefault(kind, []).append(value)
        return result, [waiting[kind].pop(0) if waiting.get(kind) else _zeros(kind) for kind in self.types]

    def _load(
        self, plan: _Plan, values: Sequence[jax.Array], saved: Sequence[jax.Array], gradient: Any
    ) -> Any:
        places: dict[Any, Iterator[jax.Array]] = {}
        for kind, group in _grouped(self.types, saved).items():
            places[kind] = iter(group)
        mine = iter([next(places[kind]) for kind in plan.types])
        found = plan.backward(values, mine, gradient)
        wanted = [jax.typeof(values[i]) for i in self.moving]
        return [_as(kind, value) for kind, value in zip(wanted, found, strict=True)]


def _pulled(
    function: Branch, values: Sequence[jax.Array], moving: Sequence[int]
) -> tuple[Any, list[jax.Array], Any]:
    """The result, and the leaves and tree of its pullback to the moving operands."""

    def of_moving(*own: jax.Array) -> Any:
        by_place = dict(zip(moving, own, strict=True))
        return function(*(by_place.get(i, value) for i, value in enumerate(values)))

    result, pull = jax.vjp(of_moving, *(values[i] for i in moving))
    leaves, tree = jax.tree.flatten(pull)
    return result, leaves, tree


def _grouped(kinds: Iterable[Any], values: Iterable[jax.Array]) -> dict[Any, list[jax.Array]]:
    found: dict[Any, list[jax.Array]] = {}
    for kind, value in zip(kinds, values, strict=True):
        found.setdefault(kind, []).append(value)
    return found


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, jax.custom_derivatives.SymbolicZero)


def _instantiated(value: Any) -> jax.Array:
    return _zeros(value.aval) if _is_symbolic(value) else value


def _zeros(kind: Any) -> jax.Array:
    """Zeros of a type, which says over which devices they vary, too."""
    return _as(kind, jnp.zeros(kind.shape, kind.dtype))


def _as(kind: Any, value: jax.Array) -> jax.Array:
    """The value, said to vary over the devices that the type varies over."""
    varying = kind.manual_axis_type.varying
    more = tuple(varying - jax.typeof(value).manual_axis_type.varying)
    return jax.lax.pcast(value, more, to="varying") if more else value
