"""Scores of many subnets on one batch: loss and error with the batch's own statistics, weights frozen.

What history re-scoring, greedy slimming and searches on frozen weights ask for. The batch is prepared once. Subnets
run bucketed in a few rungs, one compiled program each, dispatched without waiting for one another. What subnets
have in common at their beginning is computed once (`prefixes`).
"""

from __future__ import annotations

import collections
import functools
import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slimjax import sharding
from slimjax.checks import check, one_of
from slimjax.errors import UserError
from slimjax.nn import losses
from slimjax.nn.convolution import EVEN
from slimjax.nn.space import Subnet
from slimjax.nn.widths import Group
from slimjax.sharding import DATA, REPLICATED, SHARDED
from slimjax.step import prefixes, rungs
from slimjax.step.engine import Engine
from slimjax.step.prefixes import Boundary
from slimjax.step.programs import Call, ProgramCounts, Programs
from slimjax.step.slots import Batch
from slimjax.step.state import SHARED, TrainState, Tree

SHARDS = ("auto", "batch", "subnets")
FIXED_PROGRAMS = 3
"""prepare as for test and as for training, and the full size for subnets that no rung covers."""
IN_FLIGHT = 16
"""Calls that are dispatched and not done, at most: each may hold memory of its own."""
TRIALS = 3
"""Timed repetitions of each way to shard, by which "auto" decides."""


Sizes = tuple[int, ...]


class Pass(NamedTuple):
    """One forward pass of a rung's program.

    Args:
      rows: positions of the subnets that it scores, one for each device that has its own.
      fresh: the first boundary up to which this pass's beginning is not that of the pass before; as many as there
        are boundaries: none.
    """

    sizes: Sizes
    rows: np.ndarray
    fresh: int = 0


class Layout(NamedTuple):
    """How one way to shard runs: the boundaries, and the rungs [K, G] that what comes after the last one runs in."""

    boundaries: tuple[Boundary, ...]
    rungs: Subnet


class Scorer:
    """`(state, subnets, batch) -> {"loss": [N], "error": [N]}`, float64, in the order of the subnets.

    Norms use the statistics of the batch; running statistics are neither needed nor changed. `loss` is the
    cross-entropy with the engine's label smoothing, `error` is 1 - top-1.

    Paper: Joslim, Algorithm 1 (scores of the history are renewed on one batch); AutoSlim, section 3.3.

    Args:
      draws: int32 [M, G], a sample of the subnets that will be scored, for which the rungs are chosen. None: those
        of the first call. A subnet that no rung covers runs at full size.
      shard: over the devices. "batch": each has its part of the images and all subnets, and the norms' statistics
        are global. "subnets": each has the whole batch and its part of the subnets, and nothing is exchanged. Both
        give the same to rounding, unless the network's norms keep statistics per device (`BatchNorm(sync=False)`).
        "auto": the first call measures both and keeps the faster. Common beginnings are used where it is the batch.

    Raises:
      UserError: an unknown way to shard.
    """

    def __init__(
        self,
        engine: Engine,
        draws: Subnet | None = None,
        *,
        shard: str = "auto",
    ) -> None:
        check("shard", shard, one_of(*SHARDS))
        self.engine, self.shard = engine, shard if engine.mesh.size > 1 else "batch"
        # No fewer than two rungs, lest programs push each other out; what is static always has rungs of its own.
        statics = math.prod(len(axis) for axis in engine.net.space.choices if axis.static)
        self._count = max(engine.max_programs - FIXED_PROGRAMS, 2 * statics)
        self.programs = Programs(self._count + FIXED_PROGRAMS + statics - 1, self.engine.platform)
        self._layouts = {} if draws is None else self._lay_out(draws)

    @property
    def layout(self) -> Layout:
        """How subnets run."""
        return self._layouts[self._decided]

    @property
    def _decided(self) -> str:
        """What is sharded; before the first call "auto" goes by the batch."""
        return "subnets" if self.shard == "subnets" else "batch"

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
            share equally, if it is to be sharded.
        """
        subnets, weights = self._check(subnets), state.variables(affine)
        if not len(subnets):
            return {"loss": np.zeros(0), "error": np.zeros(0)}
        if not self._layouts:
            self._layouts = self._lay_out(subnets)
        if self.shard == "auto":
            self.shard = self._faster_shard(weights, subnets, batch, key)
        found = self._run(weights, subnets, self._prepared(self.shard, batch, key), self._plan(subnets))
        return {"loss": found[:, 0], "error": found[:, 1]}

    def counts(self) -> ProgramCounts:
        """Programs that are alive, and how many were compiled so far."""
        return self.programs.counts()

    def executed_macs(self, subnets: Subnet) -> float:
        """Forward MACs per image that scoring executes, on average over the subnets."""
        rows = self.engine.mesh.size if self._decided == "subnets" else 1
        return self._macs(self._plan(self._check(subnets)), self.layout) * rows / len(subnets)

    def _check(self, subnets: Subnet) -> Subnet:
        subnets, largest = np.asarray(subnets, np.int32), self.engine.net.space.largest
        if subnets.ndim != 2 or subnets.shape[1] != len(largest):
            raise UserError(f"subnets: expected int32 [N, {len(largest)}], got shape {subnets.shape}.")
        fewest = np.array([isinstance(axis, Group) for axis in self.engine.net.space.axes])
        if (wrong := ((subnets < fewest) | (subnets > largest)).any(1)).any():
            row = int(wrong.argmax())
            raise UserError(
                f"subnets: row {row}: expected 1 to {largest.tolist()} channels, got {subnets[row].tolist()}."
            )
        return subnets

    def _lay_out(self, draws: Subnet) -> dict[str, Layout]:
        """The layout of each way to shard."""
        draws, net = self._check(draws), self.engine.net
        # A boundary takes a program of its own; two rungs are always left.
        spare = min(self.engine.max_programs - FIXED_PROGRAMS - 2, prefixes.MOST_BOUNDARIES)
        boundaries = prefixes.choose(net, draws, max(spare, 0))
        shards = {"batch": boundaries} if self.shard == "batch" else {"batch": boundaries, "subnets": ()}
        return {shard: Layout(chain, self._choose_rungs(draws, chain)) for shard, chain in shards.items()}

    def _choose_rungs(self, draws: Subnet, boundaries: tuple[Boundary, ...]) -> Subnet:
        if self.engine.policy == "masked" or not len(draws):
            return draws[:0]
        net, count = self.engine.net, self._count - len(boundaries)
        wanted = prefixes.without_earlier(net, boundaries, self._rounded_up(draws))
        price = self.engine.rung_cost or prefixes.macs_after(net, boundaries)
        return rungs.choose(wanted, price, count, net.space.static)

    def _rounded_up(self, sizes: Subnet) -> Subnet:
        """The next larger sizes that the devices compute well, and that every layer can have."""
        space, step = self.engine.net.space, EVEN if self.engine.platform == "cpu" else 1
        steps = [math.lcm(step, group.multiple_of) for group in space.groups] + [1] * len(space.choices)
        return np.minimum(-(-sizes // np.array(steps, np.int32)) * steps, space.largest).astype(np.int32)

    def _plan(self, subnets: Subnet, shard: str | None = None) -> list[Pass]:
        """The passes that score all subnets: in an order of common beginnings, or by devices, the largest first."""
        shard = shard or self._decided
        layout, space = self._layouts[shard], self.engine.net.space
        sizes = np.concatenate([layout.rungs, np.unique(space.covering(subnets), axis=0)])
        ends = prefixes.without_earlier(self.engine.net, layout.boundaries, subnets)
        homes = [rungs.cover(sizes, subnet, space.static) or 0 for subnet in ends]
        if shard == "batch":
            order, fresh = prefixes.in_order(layout.boundaries, subnets)
            return [
                Pass(tuple(sizes[homes[row]].tolist()), np.array([row]), int(level))
                for row, level in zip(order, fresh, strict=True)
            ]
        members: list[list[int]] = [[] for _ in sizes]
        for row, home in enumerate(homes):
            members[home].append(row)
        width = self.engine.mesh.size
        _fill_up(members, sizes, subnets, width, space.static)
        return [
            Pass(tuple(sizes[k].tolist()), np.array(_padded(rows[i : i + width], width)))
            for k, rows in reversed(list(enumerate(members)))
            for i in range(0, len(rows), width)
        ]

    def _run(self, weights: Tree, subnets: Subnet, prepared: _Prepared, passes: list[Pass]) -> np.ndarray:
        """float64 [N, 2]: loss and error; rows that no pass scores stay NaN."""
        shard, boundaries = prepared.shard, self._layouts[prepared.shard].boundaries
        reached: list[Tree] = [
            prepared.images,
            *boundaries,
        ]  # what the network has made of the images, by boundary
        results: list[jax.Array] = []
        for number, one in enumerate(passes):
            if number >= IN_FLIGHT:
                results[number - IN_FLIGHT].block_until_ready()
            active = subnets[one.rows]
            for level in range(one.fresh, len(boundaries)):
                name = ("beginning", boundaries[level], prepared.images.shape)
                make = functools.partial(self._beginning, level)
                reached[level + 1] = self.programs.run(Call(name, make, (weights, reached[level], active)))
            key = (shard, one.sizes, prepared.images.shape)
            make = functools.partial(self._forward, shard, one.sizes)
            results.append(
                self.programs.run(Call(key, make, (weights, reached[-1], prepared.labels, active)))
            )
        found = np.full((len(subnets), 2), np.nan)
        found[np.concatenate([one.rows for one in passes])] = np.concatenate(sharding.fetch_rows(results))
        return found

    def _faster_shard(self, weights: Tree, subnets: Subnet, batch: Batch, key: jax.Array | None) -> str:
        """Times both on the rung that has most to do; all processes take the same decision."""
        if len(batch["label"]) % self.engine.mesh.size:
            return "subnets"
        plans = {shard: self._plan(subnets, shard) for shard in SHARDS[1:]}
        first = {shard: [_busiest(passes)._replace(fresh=0)] for shard, passes in plans.items()}
        prepared = {shard: self._prepared(shard, batch, key) for shard in plans}
        seconds: dict[str, list[float]] = {shard: [] for shard in plans}
        for _ in range(1 + TRIALS):
            for shard, passes in first.items():
                began = time.perf_counter()
                self._run(weights, subnets, prepared[shard], passes)
                seconds[shard].append(time.perf_counter() - began)
        # A pass stands for all of its plan, in proportion to their MACs.
        total = {
            shard: statistics.median(seconds[shard][1:])
            * self._macs(plan, self._layouts[shard])
            / self._macs(first[shard], self._layouts[shard])
            for shard, plan in plans.items()
        }
        return "subnets" if sharding.agree(total["subnets"] < total["batch"]) else "batch"

    def _macs(self, passes: list[Pass], layout: Layout) -> float:
        """Forward MACs per image of all passes, those of one subnet in each."""
        net, boundaries = self.engine.net, layout.boundaries
        between = np.array([*prefixes.macs_between(net, boundaries), 0])
        begun = sum(float(between[one.fresh :].sum()) for one in passes)
        sizes = np.array([one.sizes for one in passes], np.int32)
        return begun + float(prefixes.macs_after(net, boundaries)(sizes).sum())

    def _prepared(self, shard: str, batch: Batch, key: jax.Array | None) -> _Prepared:
        images, labels = batch["image"], batch["label"]
        if shard == "batch" and len(labels) % self.engine.mesh.size:
            raise UserError(
                f"batch: expected a multiple of {self.engine.mesh.size} images (devices), got {len(labels)}."
            )
        raw = None if key is None else np.asarray(jax.random.key_data(key))
        make = functools.partial(self._prepare, shard)
        name = ("prepare", shard, key is None, images.shape)
        return _Prepared(shard, *self.programs.run(Call(name, make, (raw, images, labels))))

    def _prepare(self, shard: str) -> jax.stages.Wrapped:
        def prepare(
            key: jax.Array | None, images: jax.Array, labels: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            if key is None:
                return self.engine.prepare_test(images), labels
            return self.engine.prepare_train(jax.random.wrap_key_data(key), images), labels

        return jax.jit(prepare, out_shardings=jax.NamedSharding(self.engine.mesh, _rows_of(shard)))

    def _beginning(self, level: int) -> jax.stages.Wrapped:
        """(weights, what the boundary before gave, active [1, G]) -> the value at a boundary, all its channels."""
        begin, end = (None, *self._layouts["batch"].boundaries)[level : level + 2]
        net = self.engine.net

        def local(weights: Tree, source: jax.Array, active: jax.Array) -> jax.Array:
            widths = net.space.widths(net.space.largest, active[0], DATA)
            return prefixes.run(net, weights, source, widths, begin, end)

        mapped = jax.shard_map(
            local, mesh=self.engine.mesh, in_specs=(REPLICATED, SHARDED, REPLICATED), out_specs=SHARDED
        )
        return jax.jit(mapped)

    def _forward(self, shard: str, sizes: Sizes) -> jax.stages.Wrapped:
        """(weights, images or the last boundary's value, labels, active [D or 1, G]) -> [D or 1, 2]."""
        rows = _rows_of(shard)
        inputs, outputs = (REPLICATED, rows, rows, REPLICATED), REPLICATED if shard == "batch" else SHARDED
        local = functools.partial(self._local_forward, shard, sizes)
        return jax.jit(jax.shard_map(local, mesh=self.engine.mesh, in_specs=inputs, out_specs=outputs))

    def _local_forward(
        self, shard: str, sizes: Sizes, weights: Tree, source: jax.Array, labels: jax.Array, active: jax.Array
    ) -> jax.Array:
        """One device's part: of the batch, with the norms' statistics over all devices, or of the subnets."""
        engine, shared = self.engine, shard == "batch"
        mine = active[0] if shared else active[jax.lax.axis_index(DATA)]
        widths = engine.net.space.widths(sizes, mine, DATA if shared else None)
        begin = (None, *self._layouts[shard].boundaries)[-1]
        logits = prefixes.run(engine.net, weights, source, widths, begin, None)
        smooth = (engine.label_smoothing, engine.smoothing_form)
        loss = losses.cross_entropy(logits, losses.smooth_labels(labels, logits.shape[-1], *smooth))
        measured = jnp.stack([loss, 1 - losses.correct(logits, labels).mean()])[None]
        return jax.lax.pmean(measured, DATA) if shared else measured


class _Prepared(NamedTuple):
    """A batch as the programs take it."""

    shard: str
    images: jax.Array
    labels: jax.Array


def _busiest(passes: list[Pass]) -> Pass:
    """One of the sizes that most passes have."""
    sizes = collections.Counter(one.sizes for one in passes).most_common(1)[0][0]
    return next(one for one in passes if one.sizes == sizes)


def _rows_of(shard: str) -> jax.sharding.PartitionSpec:
    """How the batch lies on the devices."""
    return SHARDED if shard == "batch" else REPLICATED


def _fill_up(
    members: list[list[int]], sizes: Subnet, subnets: Subnet, width: int, static: Sequence[int] = ()
) -> None:
    """Moves the rows of a rung's last, partly filled pass to where a larger rung's would run empty."""
    for k in reversed(range(len(members))):
        for j in reversed(range(k)):
            rest = len(members[j]) % width
            moved = members[j][len(members[j]) - rest :]
            fits = rungs.covers(sizes[k], subnets[moved], static).all()
            if 0 < rest <= -len(members[k]) % width and fits:
                del members[j][-rest:]
                members[k] += moved


def _padded(rows: list[int], width: int) -> list[int]:
    """As many rows as there are devices; the last one is scored again where there are too few."""
    return rows + rows[-1:] * (width - len(rows))
