"""`slimjax bench step`: what a training step costs against its slices and against the full network alone.

Times are medians of interleaved repetitions in one process, so that what else the machine does falls on all
of them alike; ratios are what can be quoted. For a TPU that is not there, the compiler's estimates are added
up instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from slimjax import sharding
from slimjax.algorithms.turns import Step
from slimjax.bench.against import torch_side
from slimjax.bench.flax_side import flax_step
from slimjax.checks import check, integer
from slimjax.errors import RunError, UserError
from slimjax.experiment.build import Experiment, build
from slimjax.nn import filters
from slimjax.nn.space import Subnet
from slimjax.profiling import hlo, tpu
from slimjax.step.composed import ComposedStep
from slimjax.step.programs import peak_bytes
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState, place

DRAWS = 8
"""Proposals that the sandwich is measured on."""

FRESH = 1000
"""Further proposals, for which programs must be there already."""

Channels = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Arms:
    """What is measured: the algorithm's step on some proposals, and each of its subnets alone."""

    experiment: Experiment
    proposals: list[Subnet]

    @classmethod
    def of(cls, experiment: Experiment) -> Arms:
        if experiment.algorithm.needs_scores:
            raise UserError(
                "bench step: expected an algorithm that proposes without a history, such as usnet, got "
                f"{experiment.config.algorithm.name}. Its steps are US-Net's, on widths that stay for a round."
            )
        if len(experiment.algorithm.phases) > 1:
            raise UserError(
                "bench step: expected an algorithm whose steps are all alike, such as usnet, got "
                f"{experiment.config.algorithm.name}, whose phases are: "
                f"{', '.join(phase.name for phase in experiment.algorithm.phases)}."
            )
        return cls(experiment, [experiment.algorithm.propose({}, step) for step in range(DRAWS)])

    @property
    def step(self) -> Step:
        """The algorithm's."""
        return self.experiment.algorithm.at(0).step

    @property
    def largest(self) -> Channels:
        return tuple(self.experiment.net.space.largest.tolist())

    def subnets(self) -> list[Channels]:
        """The largest, and every subnet that the measured steps train."""
        fixed = [slot.subnet for slot in self.step.slots if slot.subnet is not None]
        moving = [_channels(row) for rows in self.proposals for row in rows]
        return list(dict.fromkeys([self.largest, *fixed, *moving]))

    def alone(self, subnet: Channels) -> ComposedStep:
        """A whole training step of one subnet, sliced, on labels."""
        return ComposedStep(self.experiment.engine, (Slot("alone", subnet),))

    def penalised(self) -> ComposedStep:
        """The full network's step with a clipped group lasso on all filters."""
        net = self.experiment.net
        penalty = filters.lasso_penalty(net.records, net.space)
        return ComposedStep(self.experiment.engine, (Slot("alone", self.largest),), penalty=penalty)

    def answer(self, costs: Mapping[Channels, float], sandwich: float, **more: Any) -> dict[str, Any]:
        """The figures of a run, from the cost of each subnet alone and of the sandwich."""
        config, slices = self.experiment.config, self._slices(costs)
        full = costs[self.largest]
        return {
            "config": f"{config.data.name} {config.model.name} {config.algorithm.name}",
            "full": full,
            "slices": slices,
            "sandwich": sandwich,
            "ratio_to_slices": sandwich / sum(slices),
            "ratio_to_full": sandwich / full,
            **self._fresh(),
            **more,
            "batch": [config.train.batch_size, *self.experiment.net.image_shape],
            "dtype": config.model.dtype,
            "jax": jax.__version__,
        }

    def _slices(self, costs: Mapping[Channels, float]) -> list[float]:
        """Per slot: its slice alone, averaged over the proposals where it changes."""
        result, row = [], 0
        for slot in self.step.slots:
            if slot.subnet is not None:
                result.append(costs[slot.subnet])
                continue
            result.append(statistics.fmean(costs[_channels(rows[row])] for rows in self.proposals))
            row += 1
        return result

    def _fresh(self) -> dict[str, Any]:
        """What `FRESH` further proposals would compile once the planned programs are there, and what they
        cost over exact slices, in MACs."""
        algorithm, step = self.experiment.algorithm, self.step
        shapes = self.experiment.abstract_state(), self.experiment.abstract_batch()
        peak = peak_bytes(step.compile(*shapes, self.proposals[0]), shapes)
        for planned in np.unique(step.expected, axis=0):
            step.compile(*shapes, np.repeat(planned[None], len(self.proposals[0]), 0))
        warm = step.counts().compiled
        fresh = [algorithm.propose({}, number) for number in range(DRAWS, DRAWS + FRESH)]
        for rows in fresh:
            step.compile(*shapes, rows)
        draws = np.concatenate(fresh)
        return {
            "programs": step.counts().live,
            "compiles_after_warmup": step.counts().compiled - warm,
            "macs_to_slices": step.executed_macs(draws) / step.exact_macs(draws),
            "peak_bytes": peak,
        }


def run(config: ConfigDict, repeats: int = 20, against: str | None = None) -> dict[str, Any]:
    """Times the full network's step, every slice's step alone, and the algorithm's step (the sandwich).

    A slice alone is a whole training step of that subnet, sliced, on labels; the sandwich shares one update
    and one augmentation, so its ratio to the sum of its slices can fall below 1.

    Args:
      against: "torch" or "torch.compile": the same step in PyTorch is timed in turn with ours. It is given
        float images; ours begins with the stored bytes and augments them. "flax": the largest network's step as one
        writes it without this library, the augmentation included, against ours of that network alone.

    Returns: milliseconds (medians) `full`, `slices` (one per slot; for a slot whose subnet changes, the mean
    over the sizes that `DRAWS` proposals have), `sandwich`; `ratio_to_slices`, `ratio_to_full`; `penalty_to_full`,
    the full network's step with a clipped group lasso over the same without; live `programs`;
    `compiles_after_warmup` of `FRESH` further proposals, and `macs_to_slices`, their mean cost over exact slices;
    with `against`, what it is, its milliseconds (`against_full` or `against_sandwich`), and ours over it
    (`ratio_to_against`);
    `peak_bytes` of a step on a device, by the compiler's account, and `measured_peak_bytes`, which only accelerators
    say; and the machine.
    """
    check("repeats", repeats, integer(1))
    experiment = build(config)
    arms = Arms.of(experiment)
    batch = sharding.put_batch(experiment.mesh, next(experiment.train_batches()))
    algorithm, engine = experiment.algorithm, experiment.engine
    runners: dict[Any, Callable[[], None]] = {
        "sandwich": runner(experiment, arms.step, algorithm.init(0), batch, arms.proposals)
    }
    for _ in range(DRAWS):  # warm-up: every proposal is seen once
        runners["sandwich"]()
    more: dict[str, Any] = {"measured_peak_bytes": _measured_peak_bytes(experiment)}
    for subnet in arms.subnets():
        alone = arms.alone(subnet)
        runners[subnet] = runner(experiment, alone, engine.init(0, alone.slots), batch)
    penalised = arms.penalised()
    knobs = {"penalty": {"strength": np.float32(1e-4), "clip": np.float32(1.0)}}
    runners["penalised",] = runner(experiment, penalised, engine.init(0, penalised.slots, knobs), batch)
    with contextlib.ExitStack() as stack:
        if against == "flax":
            runners["flax",] = _flax_runner(experiment, batch)
        elif against:
            more["against"], runners["against"] = stack.enter_context(
                torch_side(against, experiment, arms.proposals)
            )
        times = interleaved(runners, repeats)
    more["penalty_to_full"] = times["penalised",] / times[arms.largest]
    if against == "flax":
        more |= _against_flax(times[arms.largest], times["flax",])
    elif against:
        more |= {
            "against_sandwich": times["against"],
            "ratio_to_against": times["sandwich"] / times["against"],
        }
    device = f"{experiment.mesh.size} x {jax.devices()[0].device_kind}"
    return arms.answer(times, times["sandwich"], **more, unit="ms", device=device, repeats=repeats)


def estimate(config: ConfigDict, target: str, against: str | None = None) -> dict[str, Any]:
    """The same figures for one chip of a TPU that is not there: the compiler's estimated cycles, in millions.

    Args:
      against: "flax", or nothing.

    Raises:
      UserError: no TPU compiler.
      RunError: the step does not compile for the chip, most often for lack of memory.
    """
    chip = tpu.compile_only_devices(tpu.TARGETS[target])[0]
    experiment = build(config, [chip])
    arms = Arms.of(experiment)
    nothing = arms.proposals[0][:0]
    sandwich = arms.step, experiment.abstract_state(), arms.proposals
    jobs: dict[Any, Any] = {"sandwich": sandwich}
    for subnet in arms.subnets():
        alone = arms.alone(subnet)
        jobs[subnet] = alone, experiment.abstract_state(alone.slots), [nothing]
    more: dict[str, Any] = {}
    try:
        with ThreadPoolExecutor() as pool:  # the compiler works outside Python's lock
            found = pool.map(lambda job: _estimated_megacycles(experiment, *job), jobs.values())
            costs = dict(zip(jobs, found, strict=True))
        if against:
            more = _against_flax(costs[arms.largest], _flax_megacycles(experiment))
    except jax.errors.JaxRuntimeError as error:
        raise RunError(f"{target}: {str(error).splitlines()[0]} Try a smaller train.batch_size.") from error
    device = f"1 x {chip.device_kind}, compiler estimate"
    return arms.answer(costs, costs["sandwich"], **more, unit="Mcycles", device=device)


def _measured_peak_bytes(experiment: Experiment) -> int | None:
    """The most that this process has had on a device so far."""
    found = experiment.mesh.devices.flat[0].memory_stats()
    return found.get("peak_bytes_in_use") if found else None


def _against_flax(ours: float, theirs: float) -> dict[str, Any]:
    return {"against": f"flax {flax.__version__}", "against_full": theirs, "ratio_to_against": ours / theirs}


def _flax_runner(experiment: Experiment, batch: Any) -> Callable[[], None]:
    """A function that makes one step of the largest network in plain Flax and waits for it."""
    step, begin = flax_step(experiment)
    state = sharding.put_replicated(experiment.mesh, begin())

    def once() -> None:
        nonlocal state
        state = step(state, batch)
        jax.block_until_ready(state)

    once()
    return once


def _flax_megacycles(experiment: Experiment) -> float:
    step, begin = flax_step(experiment)
    batch = experiment.abstract_batch()
    state = sharding.abstract(jax.eval_shape(begin), sharding.replicated(experiment.mesh))
    return hlo.Module.of(step.lower(state, batch).compile()).cycles / 1e6


def _estimated_megacycles(
    experiment: Experiment, step: Step, state: TrainState, proposals: Sequence[Subnet]
) -> float:
    """The mean over the proposals."""
    batch = experiment.abstract_batch()
    totals = [
        sum(hlo.Module.of(program).cycles for program, _ in step.compile(state, batch, rows))
        for rows in proposals
    ]
    return statistics.fmean(totals) / 1e6


def runner(
    experiment: Experiment, step: Step, fresh: TrainState, batch: Any, proposals: Sequence[Subnet] = ()
) -> Callable[[], None]:
    """A function that makes one step and waits for it, from a fresh state on; proposals are taken in turn."""
    state = place(experiment.mesh, fresh)
    nothing = np.zeros((0, len(experiment.net.space)), np.int32)
    count = 0

    def once() -> None:
        nonlocal state, count
        rows = proposals[count % len(proposals)] if len(proposals) else nothing
        state, _ = step(state, batch, rows)
        count += 1
        jax.block_until_ready(state)

    once()
    return once


def interleaved(runners: Mapping[Any, Callable[[], None]], repeats: int) -> dict[Any, float]:
    """Median milliseconds of each runner. Whole steps are timed over all their proposals, and averaged."""
    times: dict[Any, list[float]] = {key: [] for key in runners}
    for _ in range(repeats):
        for key, once in runners.items():
            rounds = DRAWS if isinstance(key, str) else 1
            began = time.perf_counter()
            for _ in range(rounds):
                once()
            times[key].append(1000 * (time.perf_counter() - began) / rounds)
    return {key: statistics.median(values) for key, values in times.items()}


def _channels(row: Subnet) -> Channels:
    return tuple(int(n) for n in row)
