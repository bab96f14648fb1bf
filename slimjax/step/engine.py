"""The step engine: several subnets of one network, one gradient, one update.

An algorithm describes a step as a list of `Slot`s. The engine runs them in order, hands the first slot's
logits to the others as a teacher, sums the gradients (no division by the number of subnets) and updates
once (`step.py`). It also runs single subnets: for calibration, and for scoring.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from slimjax.nn import batch_stats, losses
from slimjax.nn.space import Subnet
from slimjax.step import state
from slimjax.step.composed import ComposedStep
from slimjax.step.state import SHARED, TrainState
from slimjax.supernet import Supernet

Batch = Mapping[str, jax.Array]
"""Images uint8 [B, H, W, C] and labels int32 [B]; for scoring also `weight` float32 [B]."""
Metrics = dict[str, jax.Array]
Step = ComposedStep
POLICIES = ("auto", "sliced", "bucketed", "masked")


@dataclasses.dataclass(frozen=True)
class Slot:
    """One subnet of a training step.

    Args:
      name: prefix of its metrics.
      subnet: channels, if they are the same in every step. None: the next row of the step's proposed subnets.
      affine: the gammas and betas it uses.
      stats: the collection that its batch statistics are averaged into; None: they are not kept.
      target: what it learns from: "labels", "teacher" (the first slot's detached softmax), or "both" (sum).
      lasting: the proposed subnet stays for many steps, so that a program of its own pays.
    """

    name: str
    subnet: tuple[int, ...] | None = None
    affine: str = SHARED
    stats: str | None = None
    target: str = "labels"
    lasting: bool = False


@dataclasses.dataclass(frozen=True)
class Engine:
    """What a step is made of, whatever the algorithm.

    Args:
      prepare_train: (key, uint8 images) -> float32 images, augmented; runs on the device.
      prepare_test: uint8 images -> float32 images.
      mesh: the devices; the batch is split over them.
      policy: how subnets run. "sliced": each at its own size. "bucketed": in the cheapest of a few rungs that
        covers it. "masked": at full size. "auto": sliced where the subnets are few, else bucketed.
      max_programs: most programs of a step that are alive at a time.
      compile_behind: a lasting subnet runs bucketed or masked until another thread has compiled its sliced
        program. When that is depends on the machine, so two runs agree to rounding only. False: wait for it.
      remat: compute activations again in the backward pass instead of keeping them.
      micro_batches: the batch is processed in this many parts whose gradients are averaged.
      stats_rate: weight of a batch in running statistics (PyTorch's momentum, 0.1).
      average_decay: of the moving average of the weights; None: none is kept.
    """

    net: Supernet
    optimizer: optax.GradientTransformation
    prepare_train: Callable[[jax.Array, jax.Array], jax.Array]
    prepare_test: Callable[[jax.Array], jax.Array]
    mesh: Mesh
    policy: str = "auto"
    max_programs: int = 16
    compile_behind: bool = True
    remat: bool = False
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

    def step(self, slots: Sequence[Slot], draws: Subnet | None = None) -> ComposedStep:
        """The update `(state, batch, subnets) -> (state, metrics)`; the old state is donated.

        Args:
          draws: int32 [N, G], a sample of the subnets that will be proposed.
        """
        return ComposedStep(self, slots, draws)

    def collect(self, state: TrainState, affine: str) -> batch_stats.Collect:
        """For `batch_stats.calibrate`: the batch's own statistics of one masked subnet, weights frozen."""
        variables = state.variables(affine)

        def collect(stats: Any, subnet: jax.Array, batch: Batch, number: int) -> Any:
            return self._collect(variables, stats, subnet, batch, state.key, number)

        return collect

    def test(self, state: TrainState, affine: str, stats: Any, subnet: Any, batch: Batch) -> Metrics:
        """Sums over a batch: `correct`, `loss` (cross-entropy to the labels), `count`."""
        return self._test({**state.variables(affine), "batch_stats": stats}, subnet, batch)

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
    def _test(self, variables: Any, subnet: jax.Array, batch: Batch) -> Metrics:
        images = self.prepare_test(batch["image"])
        widths = self.net.space.masked(subnet)
        logits: Any = self.net.model.apply(variables, images, widths, train=False)
        labels, weight = batch["label"], batch["weight"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = losses.correct(logits, labels)
        return {"correct": (hits * weight).sum(), "loss": (loss * weight).sum(), "count": weight.sum()}
