"""The gradient of one slot: pure functions of arrays.

    program > one device's part > micro-batches > value and gradient > loss > forward pass

Letters: B images, b images of one device or micro-batch, K classes, G axes, D devices.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.nn import batch_stats, losses
from slimjax.nn.batch_stats import Collection
from slimjax.nn.choices import Gate
from slimjax.nn.dropout import Dropout
from slimjax.nn.widths import Widths
from slimjax.sharding import DATA, REPLICATED, SHARDED
from slimjax.step import streams
from slimjax.step.engine import Engine
from slimjax.step.forms import Form
from slimjax.step.slots import Metrics, Task
from slimjax.step.state import Tree, Weights


class Inputs(NamedTuple):
    """What a slot's gradient is computed from.

    Args:
      weights: what the slot's loss is differentiated by, at full size.
      stats: the collection that its batch statistics are averaged into; None: they are not kept.
      images: float32 [B, H, W, C]; labels: int32 [B].
      teacher: the first slot's softmax [B, K]; None in the first slot.
      active: int32 [G] active channels within the form's sizes; None: all are.
      seed: the run's raw key and the step, from which images draw what is dropped, and mixtures their noise; None:
        nothing is random.
      fixed: what else of the weights the loss depends on.
      temperature: of noisy mixtures.
    """

    weights: Weights
    stats: Collection | None
    images: jax.Array
    labels: jax.Array
    teacher: jax.Array | None
    active: jax.Array | np.ndarray | None = None
    seed: tuple[jax.Array, jax.Array] | None = None
    fixed: Weights = Weights(None, None)
    temperature: jax.Array | np.ndarray | None = None


class Outputs(NamedTuple):
    """What comes of it.

    Args:
      total: the accumulator, [D, ...] for each array of the weights, with the slot's gradient added.
      stats: the collection after this batch, or None.
      softmax: [B, K].
      metrics: "loss" and "top1", [D] each.
    """

    total: Weights
    stats: Collection | None
    softmax: jax.Array
    metrics: Metrics


class Rows(NamedTuple):
    """The part of the inputs that devices and micro-batches share out.

    Args:
      keys: raw keys [b, ...], one for each image; None where nothing is random.
    """

    images: jax.Array
    labels: jax.Array
    teacher: jax.Array | None
    keys: jax.Array | None = None


class Part(NamedTuple):
    """The gradient of one (micro-)batch, with what is measured on the way."""

    gradient: Weights
    stats: Collection | None
    softmax: jax.Array
    metrics: Metrics


def program(engine: Engine, form: Form, task: Task) -> jax.stages.Wrapped:
    """The jitted `(inputs, total) -> outputs` of a form and task; `total` is donated.

    Each device adds its own gradient to its own accumulator, without communication. With global statistics, the norms'
    means and variances are the only things that devices exchange.
    """
    local = functools.partial(_on_device, engine, form, task)
    rows = ("images", "labels", "teacher")
    inputs = Inputs._make(SHARDED if name in rows else REPLICATED for name in Inputs._fields)
    outputs = Outputs._make([SHARDED, REPLICATED, SHARDED, SHARDED])
    mapped = jax.shard_map(local, mesh=engine.mesh, in_specs=(inputs, SHARDED), out_specs=outputs)
    return jax.jit(mapped, donate_argnums=1)


def _on_device(engine: Engine, form: Form, task: Task, inputs: Inputs, total: Weights) -> Outputs:
    """One device's part. `total` has None for what no slot of this step has begun yet."""
    weights = jax.lax.pcast(inputs.weights, DATA, to="varying")
    widths = engine.net.space.widths(form.sizes, inputs.active, batch_axis=DATA)
    keys = _keys(inputs.seed, len(inputs.labels)) if task.dropout and inputs.seed else None
    noise = streams.key(*inputs.seed, streams.NOISE) if task.mixture.noisy and inputs.seed else None
    mix = functools.partial(task.mixture.weights, key=noise, temperature=inputs.temperature)
    forward = Forward(engine, widths, inputs.fixed, mix if task.mixture.names else None)
    gradient = functools.partial(_part, forward, task, weights)
    rows = Rows(inputs.images, inputs.labels, inputs.teacher, keys)
    part = _over_micro_batches(gradient, rows, inputs.stats, engine)
    added = Weights(*(_added(*pair) for pair in zip(total, part.gradient, strict=True)))
    return Outputs(added, part.stats, part.softmax, jax.tree.map(lambda m: m[None], part.metrics))


def _keys(seed: tuple[jax.Array, jax.Array], count: int) -> jax.Array:
    """A raw key for each of this device's images, a function of the step and the image's place in the whole batch."""
    key = streams.key(*seed, streams.DROPOUT)
    places = jax.lax.axis_index(DATA) * count + jnp.arange(count)
    return jax.vmap(lambda place: jax.random.key_data(jax.random.fold_in(key, place)))(places)


def _added(total: Weights | None, gradient: Weights) -> Weights:
    """The accumulator [1, ...] on this device, begun if there is none."""
    if total is None:
        return jax.tree.map(lambda g: g[None], gradient)
    return jax.tree.map(lambda t, g: t + g[None], total, gradient)


def _over_micro_batches(
    gradient: Callable[[Rows, Collection | None], Part], rows: Rows, stats: Collection | None, engine: Engine
) -> Part:
    """Micro-batches one after the other: gradients and metrics averaged, statistics carried on."""
    parts = engine.micro_batches
    if parts == 1:
        return gradient(rows, stats)
    stacked = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), rows)

    def step(carry: tuple[Weights, Collection | None], rows: Rows) -> tuple:
        total, stats = carry
        part = gradient(rows, stats)
        total = jax.tree.map(lambda a, b: a + b / parts, total, part.gradient)
        return (total, part.stats), (part.softmax, part.metrics)

    first = jax.tree.map(lambda x: x[0], stacked)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient, first, stats).gradient)
    # XLA's CPU backend runs a convolution inside a loop twenty times slower than outside of it.
    unroll = parts if engine.platform == "cpu" else 1
    ends: tuple[Tree, Tree] = jax.lax.scan(step, (zeros, stats), stacked, unroll=unroll)
    (total, stats), (soft, metrics) = ends
    softmax = jnp.moveaxis(soft, 0, 1).reshape(-1, soft.shape[-1])
    return Part(total, stats, softmax, jax.tree.map(lambda m: m.mean(0), metrics))


@dataclasses.dataclass(frozen=True)
class Forward:
    """A slot's forward pass in training mode, without the weights that its loss is differentiated by.

    Args:
      fixed: the other weights.
      mix: structure parameters -> weights of the choices that run as mixtures; None: there are none.
    """

    engine: Engine
    widths: Widths
    fixed: Weights
    mix: Callable[[Tree], Mapping[str, jax.Array]] | None = None

    def __call__(
        self, stats: Collection | None, weights: Weights, images: jax.Array
    ) -> tuple[jax.Array, Collection | None]:
        """Logits [b, K], and the batch's statistics if they are wanted."""
        whole, widths = weights.with_others(self.fixed), self.widths
        if self.mix is not None:
            mixed = {name: Gate(len(row) - 1, weights=row) for name, row in self.mix(whole.structure).items()}
            widths = dataclasses.replace(widths, gates={**widths.gates, **mixed})
        mutable = [] if stats is None else ["batch_stats"]
        net = self.engine.net
        logits, new = net.apply(whole.variables(stats), images, widths, train=True, mutable=mutable)
        return logits, new.get("batch_stats")


def _part(forward: Forward, task: Task, weights: Weights, rows: Rows, stats: Collection | None) -> Part:
    """Value and gradient of one (micro-)batch; its statistics blended into the running ones."""
    if rows.keys is not None:
        dropping = dataclasses.replace(forward.widths, dropout=Dropout(task.dropout, rows.keys))
        forward = dataclasses.replace(forward, widths=dropping)
    loss = functools.partial(_loss, forward, task, rows, stats)
    (value, (logits, new)), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    if stats is not None:
        new = batch_stats.blend(stats, new, forward.engine.stats_rate)
    metrics = {"loss": value, "top1": losses.correct(logits, rows.labels).mean()}
    return Part(gradient, new, jax.nn.softmax(logits), metrics)


def _loss(
    forward: Forward, task: Task, rows: Rows, stats: Collection | None, weights: Weights
) -> tuple[jax.Array, tuple[jax.Array, Collection | None]]:
    """One slot's loss, with its logits [b, K] and its batch's statistics (or None)."""
    engine, run = forward.engine, functools.partial(forward, stats)
    logits, new = (jax.checkpoint(run) if engine.remat else run)(weights, rows.images)
    loss = jnp.zeros(())
    if task.target in ("labels", "both"):
        smooth = (engine.label_smoothing, engine.smoothing_form)
        loss += losses.cross_entropy(logits, losses.smooth_labels(rows.labels, logits.shape[-1], *smooth))
    if task.target in ("teacher", "both"):
        assert rows.teacher is not None, "the first slot has no teacher"
        loss += losses.cross_entropy(logits, rows.teacher)
    return loss, (logits, new)
