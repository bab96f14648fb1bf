"""The step engine: several subnets of one network, one gradient, one update.

An algorithm describes a step as a list of `Slot`s. The engine runs them in order, hands the first slot's
logits to the others as a teacher, sums the gradients (no division by the number of subnets) and updates
once. Slots with a fixed subnet run sliced; slots whose subnet changes from step to step run masked, so that
one compiled program serves them all.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from slimjax import batch_stats, losses, optimizers, state
from slimjax.layers import merge_variables
from slimjax.state import SHARED, TrainState
from slimjax.supernet import Supernet
from slimjax.widths import Width

Batch = Mapping[str, jax.Array]
"""Images uint8 [B, H, W, C] and labels int32 [B]; for scoring also `weight` float32 [B]."""
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One subnet of a training step.

    Args:
      name: prefix of its metrics.
      subnet: channels; runs sliced. None: the next row of the step's proposed subnets; runs masked.
      affine: the gammas and betas it uses.
      stats: the collection that its batch statistics are averaged into; None: they are not kept.
      target: what it learns from: "labels", "teacher" (the first slot's detached softmax), or "both" (sum).
    """

    name: str
    subnet: tuple[int, ...] | None = None
    affine: str = SHARED
    stats: str | None = None
    target: str = "labels"


@dataclasses.dataclass(frozen=True)
class Engine:
    """What a step is made of, whatever the algorithm.

    Args:
      prepare_train: (key, uint8 images) -> float32 images, augmented; runs on the device.
      prepare_test: uint8 images -> float32 images.
      micro_batches: the batch is processed in this many parts whose gradients are averaged.
      stats_rate: weight of a batch in running statistics (PyTorch's momentum, 0.1).
      average_decay: of the moving average of the weights; None: none is kept.
    """

    net: Supernet
    optimizer: optax.GradientTransformation
    prepare_train: Callable[[jax.Array, jax.Array], jax.Array]
    prepare_test: Callable[[jax.Array], jax.Array]
    label_smoothing: float = 0.0
    smoothing_form: str = "all"
    micro_batches: int = 1
    stats_rate: float = 0.1
    average_decay: float | None = None

    def init(self, seed: int, slots: Sequence[Slot], algorithm: Any = None) -> TrainState:
        """A fresh state with every affine set and statistics collection that the slots name."""
        return state.create(
            self.net.model,
            self.net.image_shape,
            self.optimizer,
            seed=seed,
            affine=tuple(dict.fromkeys(slot.affine for slot in slots)),
            stats=tuple(dict.fromkeys(slot.stats for slot in slots if slot.stats)),
            average=self.average_decay is not None,
            algorithm=algorithm,
        )

    def step(self, slots: Sequence[Slot]) -> Step:
        """The jitted update `(state, batch, subnets) -> (state, metrics)`; the old state is donated.

        `subnets` is int32 [R, G], one row per slot without a subnet of its own, in order.
        """
        gradients = self._averaged(functools.partial(self._gradients, tuple(slots)))

        def step(state: TrainState, batch: Batch, subnets: jax.Array) -> tuple[TrainState, Metrics]:
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            images = self.prepare_train(key, batch["image"])
            grads, stats, metrics = gradients(state, images, batch["label"], subnets)
            updates, opt_state = self.optimizer.update(grads, state.opt_state, state.trainable)
            trainable = optax.apply_updates(state.trainable, updates)
            metrics["grad_norm"] = optax.tree.norm(grads)
            return self._advance(state, trainable, opt_state, stats), metrics

        return jax.jit(step, donate_argnums=0)

    def collect(self, state: TrainState, affine: str) -> batch_stats.Collect:
        """For `batch_stats.calibrate`: the batch's own statistics of one masked subnet, weights frozen."""
        variables = state.variables(affine)

        def collect(stats: Any, subnet: jax.Array, batch: Batch, number: int) -> Any:
            return self._collect(variables, stats, subnet, batch, state.key, number)

        return collect

    def score(self, state: TrainState, affine: str, stats: Any, subnet: Any, batch: Batch) -> Metrics:
        """Sums over a batch: `correct`, `loss` (cross-entropy to the labels), `count`."""
        return self._score({**state.variables(affine), "batch_stats": stats}, subnet, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def _collect(
        self, variables: Any, stats: Any, subnet: jax.Array, batch: Batch, key: jax.Array, number: int
    ) -> Any:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), number)
        images = self.prepare_train(key, batch["image"])
        widths = self.net.space.masked(subnet)
        variables = {**variables, "batch_stats": stats}
        _, updates = self.net.model.apply(variables, images, widths, train=True, mutable=["batch_stats"])
        return updates["batch_stats"]

    @functools.partial(jax.jit, static_argnums=0)
    def _score(self, variables: Any, subnet: jax.Array, batch: Batch) -> Metrics:
        images = self.prepare_test(batch["image"])
        widths = self.net.space.masked(subnet)
        logits: Any = self.net.model.apply(variables, images, widths, train=False)
        labels, weight = batch["label"], batch["weight"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = losses.correct(logits, labels)
        return {"correct": (hits * weight).sum(), "loss": (loss * weight).sum(), "count": weight.sum()}

    def _gradients(
        self,
        slots: tuple[Slot, ...],
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        subnets: jax.Array,
    ) -> tuple[Any, dict[str, Any], Metrics]:
        """Gradients summed over the slots, updated statistics, and metrics, of one (micro-)batch."""
        space, rows = self.net.space, iter(subnets)
        total, stats, metrics, teacher = None, dict(state.batch_stats), {}, None
        for slot in slots:
            widths = space.masked(next(rows)) if slot.subnet is None else space.sliced(slot.subnet)
            loss = functools.partial(self._loss, slot, widths, images, labels, teacher, stats)
            (value, (logits, collected)), grads = jax.value_and_grad(loss, has_aux=True)(state.trainable)
            total = grads if total is None else jax.tree.map(jnp.add, total, grads)
            if slot.stats:
                stats[slot.stats] = batch_stats.blend(stats[slot.stats], collected, self.stats_rate)
            teacher = jax.nn.softmax(logits) if teacher is None else teacher
            metrics[f"{slot.name}/loss"] = value
            metrics[f"{slot.name}/top1"] = losses.correct(logits, labels).mean()
        return total, stats, metrics

    def _loss(
        self,
        slot: Slot,
        widths: Mapping[str, Width],
        images: jax.Array,
        labels: jax.Array,
        teacher: Any,
        stats: Mapping[str, Any],
        trainable: Any,
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        """One slot's loss, with its logits [B, K] and its batch's statistics (or None)."""
        own = stats[slot.stats] if slot.stats else None
        variables = merge_variables(trainable["params"], trainable["affine"][slot.affine], own)
        mutable = ["batch_stats"] if slot.stats else []
        logits, new = self.net.model.apply(variables, images, widths, train=True, mutable=mutable)
        loss = jnp.zeros(())
        if slot.target in ("labels", "both"):
            targets = losses.smooth_labels(
                labels, logits.shape[-1], self.label_smoothing, self.smoothing_form
            )
            loss += losses.cross_entropy(logits, targets)
        if slot.target in ("teacher", "both"):
            loss += losses.cross_entropy(logits, teacher)
        return loss, (logits, new.get("batch_stats"))

    def _averaged(self, gradients: Callable[..., Any]) -> Callable[..., Any]:
        """Runs `gradients` on micro-batches one after the other and averages; the identity for one."""
        parts = self.micro_batches
        if parts == 1:
            return gradients

        def split(rows: jax.Array) -> jax.Array:
            # Strided, so that every device keeps rows of every part and nothing moves between devices.
            return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)

        def averaged(state: TrainState, images: jax.Array, labels: jax.Array, subnets: jax.Array) -> Any:
            def part(carry: tuple[Any, Any], rows: tuple[jax.Array, jax.Array]) -> Any:
                total, stats = carry
                grads, stats, metrics = gradients(
                    dataclasses.replace(state, batch_stats=stats), *rows, subnets
                )
                return (jax.tree.map(lambda a, b: a + b / parts, total, grads), stats), metrics

            start = (jax.tree.map(jnp.zeros_like, state.trainable), state.batch_stats)
            (grads, stats), metrics = jax.lax.scan(part, start, (split(images), split(labels)))
            return grads, stats, jax.tree.map(lambda m: m.mean(0), metrics)

        return averaged

    def _advance(self, state: TrainState, trainable: Any, opt_state: Any, stats: Any) -> TrainState:
        average = state.average
        if self.average_decay is not None:
            average = optimizers.moving_average(average, trainable, self.average_decay, state.step)
        new = {**trainable, "batch_stats": stats, "opt_state": opt_state, "average": average}
        return dataclasses.replace(state, step=state.step + 1, **new)
