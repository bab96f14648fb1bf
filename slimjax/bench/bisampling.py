"""`slimjax bench bisampling`: what two paths through a supernet cost, over one, and over networks cut out for them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from slimjax import sharding
from slimjax.bench.step import interleaved, runner
from slimjax.checks import check, integer
from slimjax.errors import UserError
from slimjax.experiment.build import Experiment, build
from slimjax.nn.space import Subnet
from slimjax.step import paths as draws
from slimjax.step.composed import ComposedStep
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState, place

PAIRS = 3
"""Pairs of paths that are timed."""


def run(config: ConfigDict, repeats: int = 10, paths: int = 1000) -> dict[str, Any]:
    """Times a bi-sampling step against a step of one path, and against steps of paths that are cut out.

    All at the widths that the search begins with and at full depth; a path that is cut out has no sums over depths. A
    cut-out path alone is a whole training step of that network; `pair` is one step of both, with one update. The same
    pairs of paths are timed in each way, once the bi-sampling step has run `paths` different ones: on CPUs an operator
    takes several times as long when it runs first.

    Args:
      paths: different ones, which must not compile anything.

    Returns: milliseconds (medians, and their means over the pairs) `bisampling`, `single_path` (of the pairs' first
    paths), `slices` (of a path alone) and `pair`; `ratio_to_single_path`, `ratio_to_two_slices`, `ratio_to_pair`;
    `compiles`: programs that the bi-sampling step has compiled, and `paths`: what it has run with them; and the
    machine.

    Raises:
      UserError: an algorithm that does not draw paths.
    """
    check("repeats", repeats, integer(1))
    check("paths", paths, integer(2))
    experiment = build(config)
    both, single = _steps(experiment)
    batch = sharding.put_batch(experiment.mesh, next(experiment.train_batches()))
    state = experiment.algorithm.init(0)
    widths = np.repeat(state.algorithm["subnet"][None], 2, 0)
    drawn = _drawn(experiment, both, state, widths, paths)
    once = _runner(experiment, both, state, batch, widths, itertools.count())
    for _ in range(len(drawn)):
        once()
    again = functools.partial(_runner, experiment, fresh=state, batch=batch)
    runners = {}
    for number, pair in enumerate(drawn[:PAIRS]):
        runners["bisampling", number] = again(both, rows=widths, steps=itertools.repeat(number))
        runners["single_path", number] = again(single, rows=widths[:1], steps=itertools.repeat(number))
        runners |= {(name, number): once for name, once in _cut_out(experiment, pair, batch).items()}
    interleaved(runners, 1)  # whatever runs first on these paths does so before the clock
    times = interleaved(runners, repeats)
    mean = {name: statistics.fmean(times[name, number] for number in range(PAIRS)) for name, _ in runners}
    slices = statistics.fmean((mean["first"], mean["second"]))
    return {
        "config": f"{config.data.name} {config.model.name}",
        "bisampling": mean["bisampling"],
        "single_path": mean["single_path"],
        "slices": slices,
        "pair": mean["pair"],
        "ratio_to_single_path": mean["bisampling"] / mean["single_path"],
        "ratio_to_two_slices": mean["bisampling"] / (2 * slices),
        "ratio_to_pair": mean["bisampling"] / mean["pair"],
        "compiles": both.counts().compiled,
        "paths": len(np.unique(np.concatenate(drawn), axis=0)),
        "unit": "ms",
        "batch": [config.train.batch_size, *experiment.net.image_shape],
        "dtype": config.model.dtype,
        "device": f"{experiment.mesh.size} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "repeats": repeats,
    }


def _steps(experiment: Experiment) -> tuple[ComposedStep, ComposedStep]:
    """The algorithm's bi-sampling step, and the same with one path."""
    step = experiment.algorithm.phases[-1].step
    if not isinstance(step, ComposedStep) or step.draw is None or len(step.slots) != 2:
        raise UserError(
            "bench bisampling: expected an algorithm that draws two paths a step, such as tfnas, got "
            f"{experiment.config.algorithm.name}."
        )
    one = ComposedStep(step.engine, step.slots[:1], step.expected, draw=step.draw)
    return step, one


def _drawn(
    experiment: Experiment, step: ComposedStep, state: TrainState, widths: Subnet, different: int
) -> Subnet:
    """int32 [N, 2, G]: the paths of a run's first steps, at these widths and full depth, until so many differ."""
    assert step.draw is not None
    program = draws.draw_program(step.engine, step.draw)
    rows: list[Subnet] = []
    seen: set[tuple[int, ...]] = set()
    while len(rows) < PAIRS or len(seen) < different:
        drawn = program(state.structure, state.key, np.int32(len(rows)), widths)
        rows.append(experiment.net.space.canonical(np.array(drawn, np.int32)))
        seen |= {tuple(path.tolist()) for path in rows[-1]}
    return np.array(rows)


def _cut_out(experiment: Experiment, pair: Subnet, batch: Any) -> dict[str, Callable[[], None]]:
    """Steps of the networks that two paths are: of each alone, and of both."""
    slots, engine = [Slot(f"path{i}", tuple(path.tolist())) for i, path in enumerate(pair)], experiment.engine
    steps = {"pair": slots, "first": slots[:1], "second": slots[1:]}
    return {
        name: runner(experiment, ComposedStep(engine, own), engine.init(0, own), batch)
        for name, own in steps.items()
    }


def _runner(
    experiment: Experiment,
    step: ComposedStep,
    fresh: TrainState,
    batch: Any,
    rows: Subnet,
    steps: Iterator[int],
) -> Callable[[], None]:
    """A function that makes a step, which draws the paths of the next number in `steps`, and waits for it."""
    state = place(experiment.mesh, fresh)

    def once() -> None:
        nonlocal state
        state = dataclasses.replace(
            state, step=sharding.put_replicated(experiment.mesh, np.int32(next(steps)))
        )
        state, _ = step(state, batch, rows)
        jax.block_until_ready(state)

    return once
