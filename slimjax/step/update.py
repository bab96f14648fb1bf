"""What frames the gradients of a step: the images are prepared before them, and one update comes after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from slimjax.nn import slicing
from slimjax.nn.batch_stats import Collection
from slimjax.sharding import DATA, REPLICATED, SHARDED
from slimjax.step import optimizers
from slimjax.step.engine import Engine
from slimjax.step.slots import Metrics
from slimjax.step.state import TrainState, Tree


class Sums(NamedTuple):
    """What the slots of a step leave to the update.

    Args:
      gradients: accumulators [D, ...] of {"params", "affine"}; sets of gammas and betas that no slot used are absent.
      stats: the collections that this step's subnets have renewed.
      metrics: [D] by slot and name.
    """

    gradients: dict[str, Tree]
    stats: dict[str, Collection]
    metrics: dict[str, Metrics]


def prepare_program(engine: Engine) -> jax.stages.Wrapped:
    """The jitted `(raw key, step, uint8 images) -> float32 images`, augmented on the devices."""

    def prepare(key: jax.Array, step: jax.Array, images: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
        return engine.prepare_train(key, images)

    return jax.jit(prepare, out_shardings=jax.NamedSharding(engine.mesh, SHARDED))


Penalty = Callable[[Tree, Tree], jax.Array]
"""(`TrainState.trainable`, knobs: numbers or arrays) -> a scalar that is added to the loss of a step, once."""


class Further(NamedTuple):
    """What an update may depend on besides the gradients. Arguments: other values compile nothing new.

    Args:
      knobs: the penalty's, if there is one.
      active: int32 [G], the subnet that an update is confined to; None: everything moves.
    """

    knobs: Tree = None
    active: jax.Array | np.ndarray | None = None


def update_program(engine: Engine, penalty: Penalty | None = None) -> jax.stages.Wrapped:
    """The jitted `(state, sums, further) -> (state, metrics)`: one sum over the devices, one update.

    The state is donated.

    Args:
      penalty: on what is trained.
    """

    def reduce(parts: Tree) -> Tree:
        # Flattened, so that everything crosses the devices in one all-reduce.
        flat, restore = ravel_pytree(jax.tree.map(lambda x: x[0], parts))
        return restore(jax.lax.psum(flat, DATA) / engine.mesh.size)

    reduce_all = jax.shard_map(reduce, mesh=engine.mesh, in_specs=SHARDED, out_specs=REPLICATED)

    def update(state: TrainState, sums: Sums, further: Further) -> tuple[TrainState, Metrics]:
        grads, measured = reduce_all((sums.gradients, sums.metrics))
        metrics = {f"{slot}/{name}": m for slot, found in measured.items() for name, m in found.items()}
        # A set of gammas and betas that no slot of this step uses does not move.
        idle = {name: jax.tree.map(jnp.zeros_like, affine) for name, affine in state.affine.items()}
        grads["affine"] = idle | grads["affine"]
        if penalty is not None:
            metrics["penalty"], extra = jax.value_and_grad(penalty)(state.trainable, further.knobs)
            grads = jax.tree.map(jnp.add, grads, extra)
        metrics["grad_norm"] = optax.tree.norm(grads)
        new = _updated(engine, state, grads, sums.stats)
        return new if further.active is None else _confined(engine, new, state, further.active), metrics

    return jax.jit(update, donate_argnums=0)


def _confined(engine: Engine, new: TrainState, old: TrainState, active: jax.Array | np.ndarray) -> TrainState:
    """The new state within the subnet, the old one outside: no decay, no momentum, no moving average there."""
    return slicing.merged(engine.net.records, engine.net.space, new, old, active)


def _updated(
    engine: Engine, state: TrainState, grads: dict[str, Tree], stats: dict[str, Collection]
) -> TrainState:
    updates, opt_state = engine.optimizer.update(grads, state.opt_state, state.trainable)
    new = optax.apply_updates(state.trainable, updates)
    average = state.average
    if engine.average_decay is not None:
        average = optimizers.moving_average(average, new, engine.average_decay, state.step)
    new |= {"batch_stats": state.batch_stats | stats, "opt_state": opt_state, "average": average}
    return dataclasses.replace(state, step=state.step + 1, **new)
