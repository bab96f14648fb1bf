"""Scores of many subnets on one batch: loss and error with the batch's own statistics, weights frozen.

What history re-scoring, greedy slimming and searches on frozen weights ask for. The batch is prepared once. Subnets
run bucketed in a few rungs, one compiled program each, dispatched without waiting for one another.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slimjax import losses, rungs, sharding
from slimjax.convolution import EVEN
from slimjax.errors import UserError
from slimjax.programs import Programs
from slimjax.sharding import DATA, SPLIT, WHOLE
from slimjax.state import SHARED, TrainState
from slimjax.widths import Subnet

if TYPE_CHECKING:
    from slimjax.engine import Batch, Engine

SPLITS = ("auto", "batch", "subnets")
FIXED_PROGRAMS = 3
"""prepare as for test and as for training, and the full size for subnets that no rung covers."""
IN_FLIGHT = 16
"""Calls that are dispatched and not done, at most: each may hold memory of its own."""
TRIALS = 3
"""Timed repetitions of each way to split, by which "auto" decides."""


Sizes = tuple[int, ...]


class Call(NamedTuple):
    """One call of a rung's program: positions of the subnets that it scores, one for each device that has its own."""

    sizes: Sizes
    rows: np.ndarray


class Scorer:
    """`(state, subnets, batch) -> {"loss": [N], "error": [N]}`, float64, in the order of the subnets.

    Norms use the statistics of the batch; running statistics are neither needed nor changed. `loss` is the
    cross-entropy with the engine's label smoothing, `error` is 1 - top-1.

    Paper: Joslim, Algorithm 1 (scores of the history are renewed on one batch); AutoSlim, section 3.3.

    Args:
      draws: int32 [M, G], a sample of the subnets that will be scored, for which the rungs are chosen. None: those
        of the first call. A subnet that no rung covers runs at full size.
      split: over the devices. "batch": each has its part of the images and all subnets, and the norms' statistics
        are global. "subnets": each has the whole batch and its part of the subnets, and nothing is exchanged. Both
        give the same to rounding, unless the network's norms keep statistics per device (`BatchNorm(sync=False)`).
        "auto": the first call measures both and keeps the faster.
      cost: subnets [..., G] -> [...]; the rungs have the least expected cost. None: MACs.

    Raises:
      UserError: an unknown split.
    """

    def __init__(
        self,
        engine: Engine,
        draws: Subnet | None = None,
        *,
        split: str = "auto",
        cost: rungs.Cost | None = None,
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
        self.engine, self.split = engine, split if engine.mesh.size > 1 else "batch"
        self.cost = engine.net.macs if cost is None else cost
        # No fewer than two rungs, lest programs push each other out.
        self._count = max(engine.max_programs - FIXED_PROGRAMS, 2)
        self._platform = str(engine.mesh.devices.flat[0].platform)
        self.programs = Programs(self._count + FIXED_PROGRAMS, self._platform)
        self.rungs: Subnet | None = None if draws is None else self._choose_rungs(draws)

    def __call__(
        self,
        state: TrainState,
        subnets: Subnet,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        affine: str = SHARED,
    ) -> dict[str, np.ndarray]:
        """Scores int32 [N, G] on images uint8 [B, H, W, C] and labels int32 [B], the same for all.

        Args:
          key: images are augmented as for training, with this key. None: they are prepared as for test.
          affine: the gammas and betas to use.

        Raises:
          UserError: subnets that are larger than the network or of another one; a batch that the devices cannot
            share equally, if it is to be split.
        """
        subnets, weights = self._check(subnets), state.variables(affine)
        if not len(subnets):
            return {"loss": np.zeros(0), "error": np.zeros(0)}
        if self.rungs is None:
            self.rungs = self._choose_rungs(subnets)
        if self.split == "auto":
            self.split = self._faster_split(weights, subnets, batch, key)
        found = self._run(weights, subnets, self._prepared(self.split, batch, key), self._plan(subnets))
        return {"loss": found[:, 0], "error": found[:, 1]}

    def executed_macs(self, subnets: Subnet) -> float:
        """Forward MACs per image that scoring executes, on average over the subnets."""
        calls = self._plan(self._check(subnets))
        rows = 1 if self.split == "batch" else self.engine.mesh.size
        total = sum(float(self.engine.net.macs(np.array(call.sizes))) * rows for call in calls)
        return total / len(subnets)

    def _check(self, subnets: Subnet) -> Subnet:
        subnets, largest = np.asarray(subnets, np.int32), self.engine.net.space.largest
        if subnets.ndim != 2 or subnets.shape[1] != len(largest):
            raise UserError(f"subnets: expected int32 [N, {len(largest)}], got shape {subnets.shape}.")
        if (wrong := ((subnets < 1) | (subnets > largest)).any(1)).any():
            row = int(wrong.argmax())
            raise UserError(
                f"subnets: row {row}: expected 1 to {largest.tolist()} channels, got {subnets[row].tolist()}."
            )
        return subnets

    def _choose_rungs(self, draws: Subnet) -> Subnet:
        draws = self._check(draws)
        if self.engine.policy == "masked" or not len(draws):
            return draws[:0]
        return rungs.choose(self._rounded_up(draws), self.cost, self._count)

    def _rounded_up(self, sizes: Subnet) -> Subnet:
        """The next larger sizes that the devices compute well, and that every layer can have."""
        space, step = self.engine.net.space, EVEN if self._platform == "cpu" else 1
        steps = np.array([math.lcm(step, group.multiple_of) for group in space.groups], np.int32)
        return np.minimum(-(-sizes // steps) * steps, space.largest)

    def _plan(self, subnets: Subnet, split: str | None = None) -> list[Call]:
        """The calls that score all subnets, the largest first."""
        assert self.rungs is not None
        sizes = np.concatenate([self.rungs, self.engine.net.space.largest[None]])
        members: list[list[int]] = [[] for _ in sizes]
        for row, subnet in enumerate(subnets):
            members[rungs.cover(sizes, subnet) or 0].append(row)
        width = 1 if (split or self.split) == "batch" else self.engine.mesh.size
        _fill_up(members, sizes, subnets, width)
        return [
            Call(tuple(sizes[k].tolist()), np.array(_padded(rows[i : i + width], width)))
            for k, rows in reversed(list(enumerate(members)))
            for i in range(0, len(rows), width)
        ]

    def _run(self, weights: Any, subnets: Subnet, prepared: _Prepared, calls: list[Call]) -> np.ndarray:
        """float64 [N, 2]: loss and error; rows that no call scores stay NaN."""
        results: list[jax.Array] = []
        for number, call in enumerate(calls):
            if number >= IN_FLIGHT:
                results[number - IN_FLIGHT].block_until_ready()
            key = (prepared.split, call.sizes, prepared.images.shape)
            make = functools.partial(self._forward, prepared.split, call.sizes)
            arguments = (weights, prepared.images, prepared.labels, subnets[call.rows])
            results.append(self.programs.run(key, make, *arguments))
        found = np.full((len(subnets), 2), np.nan)
        found[np.concatenate([call.rows for call in calls])] = np.concatenate(sharding.fetch_rows(results))
        return found

    def _faster_split(self, weights: Any, subnets: Subnet, batch: Batch, key: jax.Array | None) -> str:
        """Times both on the rung that has most to do; all processes take the same decision."""
        if len(batch["label"]) % self.engine.mesh.size:
            return "subnets"
        plans = {split: self._plan(subnets, split) for split in SPLITS[1:]}
        busiest = max(plans["batch"], key=lambda call: sum(c.sizes == call.sizes for c in plans["batch"]))
        first = {s: [next(c for c in calls if c.sizes == busiest.sizes)] for s, calls in plans.items()}
        prepared = {split: self._prepared(split, batch, key) for split in plans}
        seconds: dict[str, list[float]] = {split: [] for split in plans}
        for _ in range(1 + TRIALS):
            for split, calls in first.items():
                began = time.perf_counter()
                self._run(weights, subnets, prepared[split], calls)
                seconds[split].append(time.perf_counter() - began)
        # A call stands for all of its plan, in proportion to what they cost.
        total = {s: statistics.median(seconds[s][1:]) * self._cost_of(plan) for s, plan in plans.items()}
        return "subnets" if sharding.agree(total["subnets"] < total["batch"]) else "batch"

    def _cost_of(self, calls: list[Call]) -> float:
        return float(np.sum(self.cost(np.array([call.sizes for call in calls], np.int32))))

    def _prepared(self, split: str, batch: Batch, key: jax.Array | None) -> _Prepared:
        images, labels = batch["image"], batch["label"]
        if split == "batch" and len(labels) % self.engine.mesh.size:
            raise UserError(
                f"batch: expected a multiple of {self.engine.mesh.size} images (devices), got {len(labels)}."
            )
        raw = None if key is None else np.asarray(jax.random.key_data(key))
        make = functools.partial(self._prepare, split)
        name = ("prepare", split, key is None, images.shape)
        return _Prepared(split, *self.programs.run(name, make, raw, images, labels))

    def _prepare(self, split: str) -> Callable[..., Any]:
        def prepare(key: jax.Array | None, images: jax.Array, labels: jax.Array) -> Any:
            if key is None:
                return self.engine.prepare_test(images), labels
            return self.engine.prepare_train(jax.random.wrap_key_data(key), images), labels

        return jax.jit(prepare, out_shardings=jax.NamedSharding(self.engine.mesh, _rows_of(split)))

    def _forward(self, split: str, sizes: Sizes) -> Callable[..., Any]:
        """(weights, images, labels, active [D or 1, G]) -> [D or 1, 2]."""
        rows = _rows_of(split)
        inputs, outputs = (WHOLE, rows, rows, WHOLE), WHOLE if split == "batch" else SPLIT
        local = functools.partial(self._local_forward, split, sizes)
        return jax.jit(jax.shard_map(local, mesh=self.engine.mesh, in_specs=inputs, out_specs=outputs))

    def _local_forward(
        self, split: str, sizes: Sizes, weights: Any, images: jax.Array, labels: jax.Array, active: jax.Array
    ) -> jax.Array:
        """One device's part: of the batch, with the norms' statistics over all devices, or of the subnets."""
        engine, shared = self.engine, split == "batch"
        mine = active[0] if shared else active[jax.lax.axis_index(DATA)]
        widths = engine.net.space.widths(sizes, mine, DATA if shared else None)
        logits: Any = engine.net.model.apply(weights, images, widths, train=True)
        smooth = (engine.label_smoothing, engine.smoothing_form)
        loss = losses.cross_entropy(logits, losses.smooth_labels(labels, logits.shape[-1], *smooth))
        measured = jnp.stack([loss, 1 - losses.correct(logits, labels).mean()])[None]
        return jax.lax.pmean(measured, DATA) if shared else measured


class _Prepared(NamedTuple):
    """A batch as the programs take it."""

    split: str
    images: jax.Array
    labels: jax.Array


def _rows_of(split: str) -> Any:
    """How the batch lies on the devices."""
    return SPLIT if split == "batch" else WHOLE


def _fill_up(members: list[list[int]], sizes: Subnet, subnets: Subnet, width: int) -> None:
    """Moves the rows of a rung's last, partly filled call to where a larger rung's would run empty."""
    for k in reversed(range(len(members))):
        for j in reversed(range(k)):
            rest = len(members[j]) % width
            moved = members[j][len(members[j]) - rest :]
            if 0 < rest <= -len(members[k]) % width and (subnets[moved] <= sizes[k]).all():
                del members[j][-rest:]
                members[k] += moved


def _padded(rows: list[int], width: int) -> list[int]:
    """As many rows as there are devices; the last one is scored again where there are too few."""
    return rows + rows[-1:] * (width - len(rows))
