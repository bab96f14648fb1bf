"""The training state: everything that a resumed run needs, as one pytree of arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct, traverse_util
from jax.sharding import Mesh

from slimjax import sharding
from slimjax.nn.arrays import STRUCTURE
from slimjax.nn.layers import merge_variables

Tree = Any
"""A pytree of arrays."""

SHARED = "shared"
"""Name of the gammas and betas, or of the statistics, that all subnets use."""

COMMON = "common"
"""Name of the part of them that switches have in common, where each has the rest for itself: see `create`."""

Paths = Sequence[tuple[str, ...]]
"""Modules of a network, as paths of names."""


class Part(NamedTuple):
    """What one optimiser moves.

    Args:
      names: in `TrainState.trainable`.
      kept: the field of `TrainState` that holds what the optimiser keeps.
    """

    names: tuple[str, ...]
    kept: str


WEIGHTS = "weights"
PARTS: Mapping[str, Part] = MappingProxyType(
    {
        WEIGHTS: Part(("params", "affine"), "opt_state"),
        STRUCTURE: Part((STRUCTURE,), "structure_opt"),
    }
)
"""What a step may train."""


class Weights(NamedTuple):
    """What one subnet's loss depends on: kernels and biases, its gammas and betas, and perhaps structure parameters.

    Args:
      common: the gammas and betas that are not its own but those of all switches; None: all are in `affine`.
      structure: structure parameters (`nn.structure`); None: there are none.
    """

    params: Tree
    affine: Tree
    common: Tree = None
    structure: Tree = None

    def variables(self, stats: Tree = None) -> dict[str, Tree]:
        """Collections of one forward pass."""
        variables = dict(merge_variables(self.params, joined(self.affine, self.common), stats))
        return variables if self.structure is None else {**variables, STRUCTURE: self.structure}

    def only(self, parts: Iterable[str]) -> Weights:
        """Those of the named `PARTS`, with None for all others."""
        mine = self if WEIGHTS in parts else Weights(None, None)
        return mine._replace(structure=self.structure if STRUCTURE in parts else None)

    def with_others(self, others: Weights) -> Weights:
        """What is None here comes from the others."""
        return Weights(*(b if a is None else a for a, b in zip(self, others, strict=True)))


@struct.dataclass
class TrainState:
    """All arrays of a run.

    Args:
      step: int32 scalar, updates done.
      params: kernels and biases, shared by every subnet.
      affine: norm gammas and betas by name: `{"shared": ...}`, or one entry per switch (S-Net) and perhaps "common".
      batch_stats: running statistics by name of the subnet that owns them, and perhaps "common".
      opt_state: the optimiser's.
      average: exponential moving average of what is trained, or None.
      key: uint32 raw key of the run; step keys are folded from it, so it never changes.
      algorithm: the algorithm's own arrays (what it learns between steps), on the host; {} if it has none.
      structure: structure parameters (`nn.structure`), or None.
      structure_opt: what their optimiser keeps, or None.
    """

    step: jax.Array
    params: Tree
    affine: dict[str, Tree]
    batch_stats: dict[str, Tree]
    opt_state: Tree
    average: Tree
    key: jax.Array
    algorithm: Tree
    structure: Tree = None
    structure_opt: Tree = None

    @property
    def trainable(self) -> dict[str, Tree]:
        """What is trained: "params", "affine", and "structure" if there are structure parameters."""
        weights = {"params": self.params, "affine": self.affine}
        return weights if self.structure is None else {**weights, STRUCTURE: self.structure}

    def weights(self, affine: str = SHARED) -> Weights:
        """What the loss of a subnet depends on."""
        return _weights(self.trainable, affine)

    def statistics(self, name: str) -> Tree:
        """The whole running statistics of that name."""
        return joined(self.batch_stats[name], self.batch_stats.get(COMMON))

    def variables(self, affine: str = SHARED, stats: str | None = None) -> dict[str, Tree]:
        """Collections of one forward pass; taken from the moving average where there is one."""
        weights = _weights(self.average or self.trainable, affine)
        return weights.variables(None if stats is None else self.statistics(stats))


def _weights(trainable: Mapping[str, Tree], affine: str) -> Weights:
    sets = trainable["affine"]
    return Weights(trainable["params"], sets[affine], sets.get(COMMON), trainable.get(STRUCTURE))


def create(
    model: nn.Module,
    image_shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    affine: tuple[str, ...] = (SHARED,),
    stats: tuple[str, ...] = (),
    common: Paths = (),
    zeroed: Paths = (),
    average: bool = False,
    algorithm: Tree = None,
    structure: Tree = None,
    structure_optimizer: optax.GradientTransformation | None = None,
) -> TrainState:
    """A fresh state; every named affine set and statistics collection starts as a copy of the initial one.

    Args:
      common: norms that all switches have in common: sets and collections that are named for one subnet lack them,
        and one more of each, `COMMON`, holds them. None where all names are `SHARED`.
      zeroed: norms whose gammas begin at 0.
      structure: structure parameters; None: there are none.
      structure_optimizer: of the structure parameters, if they are ever trained.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = _initial(model, tuple(image_shape), init_key)
    gammas = traverse_util.path_aware_map(
        lambda path, leaf: leaf * 0 if path[:-1] in zeroed and path[-1] == "scale" else leaf,
        variables.get("affine", {}),
    )
    weights = {"params": variables["params"], "affine": _named(gammas, affine, common)}
    beside = {} if structure is None else {STRUCTURE: _copy(structure)}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **weights,
        batch_stats=_named(variables["batch_stats"], stats, common),
        opt_state=optimizer.init(weights),
        average=_copy({**weights, **beside}) if average else None,
        key=jax.random.key_data(run_key),
        algorithm={} if algorithm is None else algorithm,
        **beside,
        structure_opt=structure_optimizer.init(beside) if beside and structure_optimizer else None,
    )


def joined(own: Tree, common: Tree | None) -> Tree:
    """One tree of dicts that has the leaves of both."""
    if common is None:
        return own
    leaves = traverse_util.flatten_dict(own) | traverse_util.flatten_dict(common)
    return traverse_util.unflatten_dict(leaves)


def picked(tree: Tree, like: Tree) -> Tree:
    """The leaves of a tree of dicts that another one has too, such as what `joined` made the tree from."""
    leaves = traverse_util.flatten_dict(tree)
    return traverse_util.unflatten_dict({path: leaves[path] for path in traverse_util.flatten_dict(like)})


def _named(tree: Tree, names: tuple[str, ...], common: Paths) -> dict[str, Tree]:
    """Copies of a tree of norms by name; the norms in `common` once for all names, unless there is only `SHARED`."""
    leaves = traverse_util.flatten_dict(tree)
    everywhere = {path: leaf for path, leaf in leaves.items() if path[:-1] in common}
    if not everywhere or set(names) <= {SHARED}:
        return {name: _copy(tree) for name in names}
    own = {path: leaf for path, leaf in leaves.items() if path not in everywhere}
    parts = dict.fromkeys(names, own) | {COMMON: everywhere}
    return {name: _copy(traverse_util.unflatten_dict(part)) for name, part in parts.items()}


def place(mesh: Mesh, state: TrainState) -> TrainState:
    """The state on every device of the mesh; the algorithm's arrays stay on the host."""
    bare = dataclasses.replace(state, algorithm=None)
    arrays = jax.tree.map(np.asarray, state.algorithm)
    return dataclasses.replace(sharding.put_replicated(mesh, bare), algorithm=arrays)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial(model: nn.Module, image_shape: tuple[int, ...], key: jax.Array) -> dict[str, Tree]:
    """Jitted, the forward pass of `init` is dead code: only the initialisers are compiled, once for a model."""
    return dict(model.init(key, jnp.zeros((2, *image_shape)), train=True))


def _copy(tree: Tree) -> Tree:
    """Buffers of their own: a donated state must not hold one buffer twice."""
    return jax.tree.map(jnp.copy, tree)
