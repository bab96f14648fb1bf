"""Layers with choices: one of several operators, or a number of blocks. `choices` has the forms that they run in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.nn.choices import Choice, When
from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.switch import switch

Make = Callable[..., nn.Module]
"""A constructor of a module that takes (feature map, *arguments) to a feature map; it may be given a name."""

STATS = "batch_stats"


class Choosing(nn.Module):
    """Base of layers with a choice, whose branches it turns on and off. `trace.trace` listens to `branch` and `chosen`.

    Initialisation, and so the trace, runs all branches.
    """

    choice: Choice

    def when(self, number: int) -> When:
        """The options under which a branch runs."""
        raise NotImplementedError

    def module(self, number: int) -> nn.Module:
        """A branch's module."""
        raise NotImplementedError

    def branch(self, number: int, x: FeatureMap, *arguments: Any) -> FeatureMap:
        """One branch."""
        return self.module(number)(x, *arguments)

    def chosen(self, results: Sequence[FeatureMap], weights: jax.Array | None = None) -> FeatureMap:
        """Of one result for each option: the sum of weight times result, or the last one."""
        first, last = results[0], results[-1]
        for option, other in zip(self.choice.options, results, strict=True):
            if other.group != first.group or other.value.shape != first.value.shape:
                raise TypeError(
                    f"{'/'.join(self.path)}: option {option!r} gives {other.value.shape[1:]} in group "
                    f"{other.group.name!r}, and {self.choice.options[0]!r} {first.value.shape[1:]} in "
                    f"{first.group.name!r}. All options must give one shape, in one group."
                )
        if weights is None:
            return last
        weighted = [w * result.value for w, result in zip(weights, results, strict=True)]
        return first.with_value(sum(weighted[1:], weighted[0]).astype(first.value.dtype))

    def _pure(self, number: int, *arguments: Any) -> Callable[..., Any]:
        """A branch as a function: (its variables by collection, x) -> (result, its batch statistics if they change)."""
        alone, mutable = self.clone(parent=None), self._mutable

        def run(variables: Mapping[str, Any], x: FeatureMap) -> tuple[FeatureMap, Any]:
            call: Any = functools.partial(alone.apply, variables, number, x, *arguments, method="branch")
            if not mutable:
                return call(), {}
            result, new = call(mutable=[STATS])
            return result, new.get(STATS, {})

        return run

    @property
    def _mutable(self) -> bool:
        return self.is_mutable_collection(STATS)

    def _variables(self, *numbers: int) -> dict[str, Any]:
        """Collections of branches, as `_pure` takes them."""
        names = [str(self.module(number).name) for number in numbers]
        return {
            collection: {name: tree[name] for name in names if name in tree}
            for collection, tree in self.variables.items()
        }

    def _keep(self, stats: Mapping[str, Any]) -> None:
        """Batch statistics by branch, where the pass that made them was pure."""
        for name, tree in stats.items():
            self.put_variable(STATS, name, tree)


class Mixed(Choosing):
    """One of several operators, each with arrays of its own.

    With weights, each operator's intermediate results are computed again in the backward pass: kept for all operators
    they would need several times the memory of one.

    Paper: Hu et al., TF-NAS, ECCV 2020, section 3.1.

    Args:
      operators: one for each option.
    """

    operators: tuple[Make, ...]

    def setup(self) -> None:
        self.op = {name: make() for name, make in zip(self.choice.options, self.operators, strict=True)}

    def when(self, number: int) -> When:
        return When(self.choice, (number,))

    def module(self, number: int) -> nn.Module:
        return self.op[self.choice.options[number]]

    def __call__(self, x: FeatureMap, *arguments: Any) -> FeatureMap:
        gate, everything = x.widths.gate(self.choice), range(len(self.choice))
        if self.is_initializing():
            return self.chosen([self.branch(number, x, *arguments) for number in everything])
        if gate.is_static:
            return self.branch(gate.top, x, *arguments)
        if gate.weights is not None:
            return self._sum(x, gate.weights, *arguments)
        assert gate.index is not None
        numbers = everything[: gate.top + 1]
        variables = self._variables(*numbers)
        branches = [self._pure(number, *arguments) for number in numbers]
        value, stats = _switch(gate.index, branches, variables, x)
        self._keep(stats)
        return x.with_value(value, jax.eval_shape(branches[0], variables, x)[0].group)

    def _sum(self, x: FeatureMap, weights: jax.Array, *arguments: Any) -> FeatureMap:
        results = []
        for number in range(len(self.choice)):
            result, stats = jax.checkpoint(self._pure(number, *arguments))(self._variables(number), x)
            self._keep(stats)
            results.append(result)
        return self.chosen(results, weights)


class Depth(Choosing):
    """Blocks one after the other, of which the first few run.

    With weights the result is the sum, over the depths, of weight times what that many blocks give: sink-connecting.

    Paper: Hu et al., TF-NAS, ECCV 2020, section 3.3; Cai et al., Once-for-All, ICLR 2020 (elastic depth).

    Args:
      blocks: as many as the last option says. The options' names are numbers of blocks, from at least 1.
    """

    blocks: tuple[Make, ...]

    def setup(self) -> None:
        if (
            self.depths != sorted(set(self.depths))
            or self.depths[0] < 1
            or self.depths[-1] != len(self.blocks)
        ):
            raise UserError(
                f"choice {self.choice.name!r}: expected rising numbers of blocks from 1 to {len(self.blocks)}, "
                f"got {list(self.choice.options)}."
            )
        self.block = {str(number): make() for number, make in enumerate(self.blocks, 1)}

    @property
    def depths(self) -> list[int]:
        """Blocks that run under each option."""
        return [int(option) for option in self.choice.options]

    def when(self, number: int) -> When:
        return When(self.choice, tuple(i for i, depth in enumerate(self.depths) if depth > number))

    def module(self, number: int) -> nn.Module:
        return self.block[str(number + 1)]

    def __call__(self, x: FeatureMap, *arguments: Any) -> FeatureMap:
        gate = x.widths.gate(self.choice)
        everything = self.is_initializing() or gate.weights is not None
        results = []
        for number in range(self.depths[-1 if everything else gate.top]):
            if gate.index is None or everything or number < self.depths[0]:
                x = self.branch(number, x, *arguments)
            else:
                x = self._if(gate.index >= self.when(number).options[0], number, x, *arguments)
            if everything and number + 1 in self.depths:
                results.append(x)
        return self.chosen(results, None if self.is_initializing() else gate.weights) if everything else x

    def _if(self, runs: jax.Array, number: int, x: FeatureMap, *arguments: Any) -> FeatureMap:
        """The block, or nothing."""
        skip = lambda variables, x: (x, variables.get(STATS, {}) if self._mutable else {})  # noqa: E731
        branches = [skip, self._pure(number, *arguments)]
        value, stats = _switch(runs.astype(jnp.int32), branches, self._variables(number), x)
        self._keep(stats)
        return x.with_value(value)


def _switch(
    index: jax.Array, branches: Sequence[Callable[..., tuple[FeatureMap, Any]]], variables: Any, x: FeatureMap
) -> tuple[jax.Array, Any]:
    """Value and batch statistics of the branch that runs; those of the others stay as they are."""

    def bare(
        branch: Callable[..., tuple[FeatureMap, Any]], variables: Any, x: FeatureMap
    ) -> tuple[jax.Array, Any]:
        inside = dataclasses.replace(x.widths, in_branch=True)
        result, stats = branch(variables, dataclasses.replace(x, widths=inside))
        return result.value, {**variables[STATS], **stats} if stats else {}

    return switch(index, [functools.partial(bare, branch) for branch in branches], variables, x)
