"""`slimjax bench step`: what a training step costs against its slices and against the full network alone.

Times are medians of interleaved repetitions in one process, so that what else the machine does falls on all
of them alike; ratios are what can be quoted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from slimjax import sharding
from slimjax.algorithms import Algorithm
from slimjax.build import Experiment, build
from slimjax.engine import Slot
from slimjax.step import ComposedStep
from slimjax.widths import Subnet


def run(config: ConfigDict, repeats: int) -> dict[str, Any]:
    """Times the full network's step, every slice's step alone, and the algorithm's step (the sandwich).

    A slice alone is a whole training step of that subnet, sliced, on labels; the sandwich shares one update
    and one augmentation, so its ratio to the sum of its slices can fall below 1.

    Returns: milliseconds (medians) `full`, `slices` (one per slot; for a slot whose subnet changes, the mean
    over the sizes that `DRAWS` proposals have), `sandwich`; `ratio_to_slices`, `ratio_to_full`; live
    `programs`; `compiles_after_warmup`; `program_bytes`, what the hungriest program needs beside its
    arguments, by the compiler's account; and the machine.
    """
    experiment = build(config)
    algorithm = experiment.algorithm
    batch = sharding.put_batch(experiment.mesh, next(experiment.train_batches()))
    proposals = [algorithm.propose({}, step) for step in range(DRAWS)]
    largest = tuple(experiment.net.space.largest.tolist())
    subnets = _subnets(largest, algorithm, proposals)
    alone = {subnet: _runner(experiment, _alone(experiment, subnet), batch) for subnet in subnets}
    sandwich = _runner(experiment, algorithm.step, batch, proposals)
    for _ in range(DRAWS):  # warm-up: every proposal is seen once
        sandwich()
    warm = algorithm.step.programs.compiles
    times = _interleaved({"sandwich": sandwich, **alone}, repeats)
    slices = _slices(algorithm, proposals, times)
    full = times[largest]
    return {
        "config": f"{config.data.name} {config.model.name} {config.algorithm.name}",
        "full": full,
        "slices": slices,
        "sandwich": times["sandwich"],
        "ratio_to_slices": times["sandwich"] / sum(slices),
        "ratio_to_full": times["sandwich"] / full,
        "programs": len(algorithm.step.programs),
        "compiles_after_warmup": algorithm.step.programs.compiles - warm,
        "program_bytes": algorithm.step.programs.memory(),
        "unit": "ms",
        "batch": list(batch["image"].shape),
        "dtype": config.model.dtype,
        "device": f"{experiment.mesh.size} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "repeats": repeats,
    }


DRAWS = 8
"""Proposals that the sandwich is timed on, in turn."""

Key = Any


def _alone(experiment: Experiment, subnet: tuple[int, ...]) -> ComposedStep:
    return experiment.engine.step((Slot("alone", subnet),))


def _runner(
    experiment: Experiment, step: ComposedStep, batch: Any, proposals: Sequence[Subnet] = ()
) -> Callable[[], None]:
    """A function that makes one step and waits for it; proposals are taken in turn."""
    fresh = experiment.engine.init(0, step.slots)
    state = sharding.put_replicated(experiment.mesh, fresh)
    nothing = np.zeros((0, len(experiment.net.space.groups)), np.int32)
    count = 0

    def once() -> None:
        nonlocal state, count
        rows = proposals[count % len(proposals)] if len(proposals) else nothing
        state, _ = step(state, batch, rows)
        count += 1
        jax.block_until_ready(state)

    once()
    return once


def _interleaved(runners: dict[Key, Callable[[], None]], repeats: int) -> dict[Key, float]:
    """Median milliseconds of each runner. The sandwich is timed over all its proposals, and averaged."""
    times: dict[Key, list[float]] = {key: [] for key in runners}
    for _ in range(repeats):
        for key, once in runners.items():
            rounds = DRAWS if key == "sandwich" else 1
            began = time.perf_counter()
            for _ in range(rounds):
                once()
            times[key].append(1000 * (time.perf_counter() - began) / rounds)
    return {key: statistics.median(values) for key, values in times.items()}


def _subnets(
    largest: tuple[int, ...], algorithm: Algorithm, proposals: Sequence[Subnet]
) -> list[tuple[int, ...]]:
    """The largest, and every subnet that the timed steps train."""
    fixed = [slot.subnet for slot in algorithm.slots if slot.subnet is not None]
    moving = [tuple(int(n) for n in row) for rows in proposals for row in rows]
    return list(dict.fromkeys([largest, *fixed, *moving]))


def _slices(algorithm: Algorithm, proposals: Sequence[Subnet], times: dict[Key, float]) -> list[float]:
    """Milliseconds per slot: its slice alone, averaged over the proposals where it changes."""
    result, row = [], 0
    for slot in algorithm.slots:
        if slot.subnet is not None:
            result.append(times[slot.subnet])
            continue
        result.append(statistics.fmean(times[tuple(int(n) for n in rows[row])] for rows in proposals))
        row += 1
    return result
