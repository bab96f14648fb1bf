"""The training state: everything that a resumed run needs, as one pytree of arrays."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from slimjax import sharding
from slimjax.nn.layers import merge_variables

Tree = Any
"""A pytree of arrays."""

SHARED = "shared"
"""Name of the gamma and beta, or of the statistics, that several subnets use in common."""


class Weights(NamedTuple):
    """What one subnet's loss is differentiated by: the shared kernels and biases, and its gammas and betas."""

    params: Tree
    affine: Tree


@struct.dataclass
class TrainState:
    """All arrays of a run.

    Args:
      step: int32 scalar, updates done.
      params: kernels and biases, shared by every subnet.
      affine: norm gammas and betas by name: `{"shared": ...}`, or one entry per switch (S-Net).
      batch_stats: running statistics by name of the subnet that owns them.
      opt_state: the optimiser's.
      average: exponential moving average of {"params", "affine"}, or None.
      key: uint32 raw key of the run; step keys are folded from it, so it never changes.
      algorithm: the algorithm's own arrays (what `observe` learns), on the host; {} if it has none.
    """

    step: jax.Array
    params: Tree
    affine: dict[str, Tree]
    batch_stats: dict[str, Tree]
    opt_state: Tree
    average: Tree
    key: jax.Array
    algorithm: Tree

    @property
    def trainable(self) -> dict[str, Tree]:
        """What the optimiser updates."""
        return {"params": self.params, "affine": self.affine}

    def weights(self, affine: str = SHARED) -> Weights:
        """What a subnet trains."""
        return Weights(self.params, self.affine[affine])

    def variables(self, affine: str = SHARED, stats: str | None = None) -> dict[str, Tree]:
        """Collections of one forward pass; taken from the moving average where there is one."""
        source = self.average or self.trainable
        chosen = None if stats is None else self.batch_stats[stats]
        return dict(merge_variables(source["params"], source["affine"][affine], chosen))


def create(
    model: nn.Module,
    image_shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    affine: tuple[str, ...] = (SHARED,),
    stats: tuple[str, ...] = (),
    average: bool = False,
    algorithm: Tree = None,
) -> TrainState:
    """A fresh state; every named affine set and statistics collection starts as a copy of the initial one."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = _initial(model, tuple(image_shape), init_key)
    trainable = {"params": variables["params"], "affine": {n: _copy(variables["affine"]) for n in affine}}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **trainable,
        batch_stats={name: _copy(variables["batch_stats"]) for name in stats},
        opt_state=optimizer.init(trainable),
        average=_copy(trainable) if average else None,
        key=jax.random.key_data(run_key),
        algorithm={} if algorithm is None else algorithm,
    )


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
