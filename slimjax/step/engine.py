"""The engine: what every step of a run is made of, whatever the algorithm.

An algorithm describes a step as a list of slots (`slots`). The step runs them in order, hands the first slot's softmax
to the others as a teacher, sums the gradients (no division by the number of subnets) and updates once (`composed`).
The engine itself runs single subnets: for calibration, and for tests.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from slimjax.nn import batch_stats, losses, roles
from slimjax.nn.batch_stats import Collection
from slimjax.nn.space import Subnet
from slimjax.step import state
from slimjax.step.optimizers import Updates
from slimjax.step.rungs import Cost
from slimjax.step.slots import Batch, Metrics, Slot
from slimjax.step.state import STRUCTURE, WEIGHTS, TrainState, Tree
from slimjax.supernet import Supernet

POLICIES = ("auto", "sliced", "bucketed", "masked")


@dataclasses.dataclass(frozen=True)
class Engine:
    """What a step is made of, whatever the algorithm.

    Args:
      prepare_train: (key, uint8 images) -> float32 images, augmented; runs on the device.
      prepare_test: uint8 images -> float32 images.
      mesh: the devices; the batch is split over them.
      policy: how subnets run. "sliced": each at its own size. "bucketed": in the cheapest of a few rungs that
        covers it. "masked": at full size. "auto": sliced where the subnets are few, else bucketed.
      rung_cost: what rungs are chosen by, a function of subnets int32 [..., G]; None: their MACs.
      max_programs: most programs of a step that are alive at a time.
      compile_behind: a lasting subnet runs bucketed or masked until another thread has compiled its sliced
        program. When that is depends on the machine, so two runs agree to rounding only. False: wait for it.
      remat: compute activations again in the backward pass instead of keeping them.
      micro_batches: the batch is processed in this many parts whose gradients are averaged.
      stats_rate: weight of a batch in running statistics (PyTorch's momentum, 0.1).
      average_decay: of the moving average of the weights; None: none is kept.
      structure_optimizer: of structure parameters; None: they are not trained.
      updates: of the run that the engine is for, for algorithms that divide it into phases; None: there is no run.
    """

    net: Supernet
    optimizer: optax.GradientTransformation
    prepare_train: Callable[[jax.Array, jax.Array], jax.Array]
    prepare_test: Callable[[jax.Array], jax.Array]
    mesh: Mesh
    policy: str = "auto"
    rung_cost: Cost | None = None
    max_programs: int = 16
    compile_behind: bool = True
    remat: bool = False
    label_smoothing: float = 0.0
    smoothing_form: str = "all"
    micro_batches: int = 1
    stats_rate: float = 0.1
    average_decay: float | None = None
    updates: Updates | None = None
    structure_optimizer: optax.GradientTransformation | None = None

    @property
    def optimizers(self) -> dict[str, optax.GradientTransformation | None]:
        """Of each of `state.PARTS`."""
        return {WEIGHTS: self.optimizer, STRUCTURE: self.structure_optimizer}

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu" or "tpu"."""
        return str(self.mesh.devices.flat[0].platform)

    def init(
        self,
        seed: int,
        slots: Sequence[Slot],
        algorithm: Tree = None,
        *,
        shares_fixed: bool = False,
        zero_last_gammas: bool = False,
        structure: Tree = None,
    ) -> TrainState:
        """A fresh state with every affine set and statistics collection that the slots name.

        Args:
          algorithm: the algorithm's own arrays.
          shares_fixed: all slots have the norms of groups that are never narrowed in common (`state.COMMON`), even
            where they have gammas, betas or statistics of their own.
          zero_last_gammas: the gammas of the last norm of every residual branch begin at 0 instead of 1, so that each
            block begins as its shortcut.
          structure: structure parameters to begin with (`nn.structure`); None: there are none.
        """
        return state.create(
            self.net.model,
            self.net.image_shape,
            self.optimizer,
            seed=seed,
            affine=tuple(dict.fromkeys(slot.affine for slot in slots)),
            stats=tuple(dict.fromkeys(slot.stats for slot in slots if slot.stats)),
            common=roles.fixed_norms(self.net.records) if shares_fixed else (),
            zeroed=roles.last_norms(self.net.records) if zero_last_gammas else (),
            average=self.average_decay is not None,
            algorithm=algorithm,
            structure=structure,
            structure_optimizer=self.structure_optimizer,
        )

    def collect(self, state: TrainState, affine: str) -> batch_stats.Collect:
        """For `batch_stats.calibrate`: the batch's own statistics of one masked subnet, weights frozen."""
        variables = state.variables(affine)

        def collect(stats: Collection, subnet: Subnet, batch: Batch, number: int) -> Collection:
            return self._collect(self._sizes(subnet), variables, stats, subnet, batch, state.key, number)

        return collect

    def test(
        self, state: TrainState, affine: str, stats: Collection, subnet: Subnet, batch: Batch
    ) -> Metrics:
        """Sums over a batch: `correct`, `loss` (cross-entropy to the labels), `count`."""
        variables = {**state.variables(affine), "batch_stats": stats}
        return self._test(self._sizes(subnet), variables, subnet, batch)

    def _sizes(self, subnet: Subnet) -> tuple[int, ...]:
        """Of the masked program that the subnet runs in."""
        return tuple(self.net.space.covering(np.asarray(subnet)).tolist())

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _collect(
        self,
        sizes: tuple[int, ...],
        variables: Tree,
        stats: Collection,
        subnet: jax.Array,
        batch: Batch,
        key: jax.Array,
        number: int,
    ) -> Collection:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), number)
        images = self.prepare_train(key, batch["image"])
        widths = dataclasses.replace(self.net.space.widths(sizes, subnet), exact=True)
        variables = {**variables, "batch_stats": stats}
        _, updates = self.net.apply(variables, images, widths, train=True, mutable=["batch_stats"])
        return updates["batch_stats"]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _test(self, sizes: tuple[int, ...], variables: Tree, subnet: jax.Array, batch: Batch) -> Metrics:
        images = self.prepare_test(batch["image"])
        widths = self.net.space.widths(sizes, subnet)
        logits: Tree = self.net.apply(variables, images, widths, train=False)
        labels, weight = batch["label"], batch["weight"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = losses.correct(logits, labels)
        return {"correct": (hits * weight).sum(), "loss": (loss * weight).sum(), "count": weight.sum()}
