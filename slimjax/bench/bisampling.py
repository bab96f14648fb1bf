"""`slimjax bench bisampling`: what two paths through a supernet cost, over one, and over networks cut out for them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from slimjax import sharding
from slimjax.bench.step import DRAWS, interleaved, runner
from slimjax.checks import check, integer
from slimjax.errors import UserError
from slimjax.experiment.build import Experiment, build
from slimjax.nn.space import Subnet
from slimjax.step import paths
from slimjax.step.composed import ComposedStep
from slimjax.step.slots import Slot

PAIRS = 3
"""Pairs of paths that are cut out."""

DISTINCT = 1000
"""Paths that are run to see what they compile."""


def run(config: ConfigDict, repeats: int = 10) -> dict[str, Any]:
    """Times a bi-sampling step against a step of one path, and against steps of paths that are cut out.

    All at the widths that the search begins with and at full depth; a path that is cut out has no sums over depths. A
    cut-out path alone is a whole training step of that network; `pair` is one step of both, with one update.

    Returns: milliseconds (medians) `bisampling`, `single_path`, `slices` (the mean of one path alone) and `pair`;
    `ratio_to_single_path`, `ratio_to_two_slices`, `ratio_to_pair`; `compiles`: programs that the bi-sampling step has
    compiled, and `paths`: the different ones that it has run with them; and the machine.

    Raises:
      UserError: an algorithm that does not draw paths.
    """
    check("repeats", repeats, integer(1))
    experiment = build(config)
    both, single = _steps(experiment)
    batch = sharding.put_batch(experiment.mesh, next(experiment.train_batches()))
    init = experiment.algorithm.init
    widths = np.repeat(init(0).algorithm["subnet"][None], 2, 0)
    runners: dict[Any, Callable[[], None]] = {
        "bisampling": runner(experiment, both, init(0), batch, [widths]),
        "single": runner(experiment, single, init(0), batch, [widths[:1]]),
    }
    for number, pair in enumerate(_drawn(experiment, both, PAIRS)):
        slots = [Slot(f"path{i}", tuple(path.tolist())) for i, path in enumerate(pair)]
        for name, own in (("pair", slots), ("alone", slots[:1]), ("alone2", slots[1:])):
            step = ComposedStep(both.engine, own)
            runners[name, number] = runner(experiment, step, both.engine.init(0, own), batch)
    times = interleaved(runners, repeats)
    alone = statistics.fmean(ms for key, ms in times.items() if key[0] in ("alone", "alone2"))
    pairs = statistics.fmean(ms for key, ms in times.items() if key[0] == "pair")
    return {
        "config": f"{config.data.name} {config.model.name}",
        "bisampling": times["bisampling"],
        "single_path": times["single"],
        "slices": alone,
        "pair": pairs,
        "ratio_to_single_path": times["bisampling"] / times["single"],
        "ratio_to_two_slices": times["bisampling"] / (2 * alone),
        "ratio_to_pair": times["bisampling"] / pairs,
        **_compiles(experiment, both, runners["bisampling"], done=1 + repeats * DRAWS),
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


def _drawn(experiment: Experiment, step: ComposedStep, count: int) -> Subnet:
    """int32 [count, 2, G]: the paths of the first steps of a run, at its first widths and full depth."""
    assert step.draw is not None
    state = experiment.algorithm.init(0)
    widths = np.repeat(state.algorithm["subnet"][None], 2, 0)
    program = paths.draw_program(step.engine, step.draw)
    rows = [program(state.structure, state.key, np.int32(number), widths) for number in range(count)]
    return experiment.net.space.canonical(np.array(rows, np.int32))


def _compiles(
    experiment: Experiment, step: ComposedStep, once: Callable[[], None], done: int
) -> dict[str, int]:
    """Runs the step, which has run `done` times, until `DISTINCT` different paths have been drawn."""
    total = max(done, DISTINCT // 2)
    while (distinct := len(np.unique(np.concatenate(_drawn(experiment, step, total)), axis=0))) < DISTINCT:
        total += DISTINCT - distinct
    for _ in range(total - done):
        once()
    return {"compiles": step.counts().compiled, "paths": distinct}
