"""What frames the gradients of a step: the images are prepared before them, and one update comes after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from slimjax.nn import slicing
from slimjax.nn.batch_stats import Collection
from slimjax.sharding import DATA, REPLICATED, SHARDED
from slimjax.step import optimizers, streams
from slimjax.step.engine import Engine
from slimjax.step.slots import Metrics, Slot
from slimjax.step.state import COMMON, PARTS, STRUCTURE, WEIGHTS, TrainState, Tree, Weights, joined, picked


class Sums(NamedTuple):
    """What the slots of a step leave to the update.

    Args:
      gradients: accumulators [D, ...] of {"params", "affine", "structure"}; None for what is not trained, and sets of
        gammas and betas that no slot used are absent.
      stats: the collections that this step's subnets have renewed.
      metrics: [D] by slot and name.
    """

    gradients: dict[str, Tree]
    stats: dict[str, Collection]
    metrics: dict[str, Metrics]

    @classmethod
    def begun(cls, state: TrainState) -> Sums:
        """Before the first slot."""
        return cls({"params": None, "affine": {}, STRUCTURE: None}, dict(state.batch_stats), {})

    def total(self, slot: Slot) -> Weights:
        """The accumulators that a slot adds to; None where it is the first."""
        affine = self.gradients["affine"]
        return Weights(
            self.gradients["params"],
            affine.get(slot.affine),
            affine.get(COMMON),
            self.gradients[STRUCTURE],
        )

    def collection(self, slot: Slot) -> Collection | None:
        """The whole running statistics that a slot's are averaged into."""
        return joined(self.stats[slot.stats], self.stats.get(COMMON)) if slot.stats else None

    def note(self, slot: Slot, total: Weights, stats: Collection | None, metrics: Metrics) -> None:
        """Puts a slot's result where the next slots and the update find it."""
        self.gradients.update({"params": total.params, STRUCTURE: total.structure})
        for name, part in ((slot.affine, total.affine), (COMMON, total.common)):
            if part is not None:
                self.gradients["affine"][name] = part
        self.metrics[slot.name] = metrics
        if slot.stats and COMMON in self.stats:
            for name in (slot.stats, COMMON):
                self.stats[name] = picked(stats, self.stats[name])
        elif slot.stats:
            self.stats[slot.stats] = stats


def prepare_program(engine: Engine) -> jax.stages.Wrapped:
    """The jitted `(raw key, step, uint8 images) -> float32 images`, augmented on the devices."""

    def prepare(key: jax.Array, step: jax.Array, images: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
        return engine.prepare_train(key, images)

    return jax.jit(prepare, out_shardings=jax.NamedSharding(engine.mesh, SHARDED))


GRAD_NORM = {WEIGHTS: "grad_norm", STRUCTURE: "structure_grad_norm"}
"""Names of the norm of what each part's optimiser is given."""

Penalty = Callable[[Tree, Tree], jax.Array]
"""(`TrainState.trainable`, knobs: numbers or arrays) -> a scalar that is added to the loss of a step, once. Among the
knobs is "noise", the key from which the step's mixtures draw theirs."""


class Further(NamedTuple):
    """What an update may depend on besides the gradients. Arguments: other values compile nothing new.

    Args:
      knobs: the penalty's, if there is one.
      active: int32 [G], the subnet that an update is confined to; None: everything moves.
    """

    knobs: Tree = None
    active: jax.Array | np.ndarray | None = None


def update_program(
    engine: Engine, trains: Sequence[str] = (WEIGHTS,), penalty: Penalty | None = None
) -> jax.stages.Wrapped:
    """The jitted `(state, sums, further) -> (state, metrics)`: one sum over the devices, one update.

    The state is donated.

    Args:
      trains: which of `PARTS` move; all else of what is trained stays to the bit.
      penalty: on what is trained.
    """
    moving = [name for part in trains for name in PARTS[part].names]

    def reduce(parts: Tree) -> Tree:
        # Flattened, so that everything crosses the devices in one all-reduce.
        flat, restore = ravel_pytree(jax.tree.map(lambda x: x[0], parts))
        return restore(jax.lax.psum(flat, DATA) / engine.mesh.size)

    reduce_all = jax.shard_map(reduce, mesh=engine.mesh, in_specs=SHARDED, out_specs=REPLICATED)

    def update(state: TrainState, sums: Sums, further: Further) -> tuple[TrainState, Metrics]:
        if STRUCTURE in trains and state.structure is None:
            raise ValueError("trains: no structure parameters in this state. Give Engine.init a structure.")
        grads, measured = reduce_all((sums.gradients, sums.metrics))
        metrics = {f"{slot}/{name}": m for slot, found in measured.items() for name, m in found.items()}
        # A set of gammas and betas that no slot of this step uses does not move.
        idle = {name: jax.tree.map(jnp.zeros_like, affine) for name, affine in state.affine.items()}
        grads["affine"] = idle | grads["affine"]
        grads = {name: grads[name] for name in moving}
        if penalty is not None:
            knobs = {**further.knobs, "noise": streams.key(state.key, state.step, streams.NOISE)}
            metrics["penalty"], extra = jax.value_and_grad(penalty)(state.trainable, knobs)
            grads = {name: jax.tree.map(jnp.add, grads[name], extra[name]) for name in moving}
        new = dataclasses.replace(state, step=state.step + 1, batch_stats=state.batch_stats | sums.stats)
        for part in trains:
            own = {name: grads[name] for name in PARTS[part].names}
            metrics[GRAD_NORM[part]] = optax.tree.norm(own)
            new = _moved(engine, part, new, own)
        new = _averaged(engine, new, state.step, moving)
        return new if further.active is None else _confined(engine, new, state, further.active), metrics

    return jax.jit(update, donate_argnums=0)


def _confined(engine: Engine, new: TrainState, old: TrainState, active: jax.Array | np.ndarray) -> TrainState:
    """The new state within the subnet, the old one outside: no decay, no momentum, no moving average there."""
    return slicing.merged(engine.net.records, engine.net.space, new, old, active)


def _moved(engine: Engine, part: str, state: TrainState, grads: dict[str, Tree]) -> TrainState:
    """The state after one part's optimiser has moved what is its own."""
    names, kept = PARTS[part]
    trained = {name: state.trainable[name] for name in names}
    optimizer = engine.optimizers[part]
    assert optimizer is not None, "the step has checked that there is one"
    updates, new = optimizer.update(grads, getattr(state, kept), trained)
    return dataclasses.replace(state, **{kept: new, **optax.apply_updates(trained, updates)})


def _averaged(engine: Engine, state: TrainState, step: jax.Array, moving: Sequence[str]) -> TrainState:
    """The moving average takes in what has moved; what a step does not train, it does not average either."""
    if engine.average_decay is None:
        return state
    old, new = ({name: tree[name] for name in moving} for tree in (state.average, state.trainable))
    average = optimizers.moving_average(old, new, engine.average_decay, step)
    return dataclasses.replace(state, average={**state.average, **average})
