"""The training loop: one function, in an order that is law."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from slimjax import sharding
from slimjax.data.feed import Feed
from slimjax.errors import RunError
from slimjax.experiment import plan, reload, results
from slimjax.experiment.build import Experiment, build
from slimjax.experiment.measure import Prober, evaluate
from slimjax.progress import Progress, Stopwatch
from slimjax.report.table import SubnetRow
from slimjax.search.trials import TrialLog
from slimjax.step.state import TrainState
from slimjax.workdir.checkpoint import Checkpointer
from slimjax.workdir.metrics import MetricsWriter
from slimjax.workdir.rundir import RunDir

MAY_CHANGE = ("devices", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints", "evaluation")
"""Fields that a resumed run may set differently: they do not change what is learnt."""


def train(config: ConfigDict, directory: epath.PathLike, command: str = "") -> list[SubnetRow]:
    """Trains, calibrates, evaluates and reports; called again on the same directory, it resumes.

    Writes checkpoints, metrics (JSON lines and TensorBoard), config, rows and report, and trials if the
    algorithm searches; `RunDir` has their names.
    """
    experiment, run = build(config), RunDir(directory)
    algorithm = experiment.algorithm
    leads = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        # 1. Claim the directory and say what will run.
        if leads:
            stack.enter_context(run.claim(config.to_json_best_effort(), MAY_CHANGE))
        saver = stack.enter_context(Checkpointer(run.checkpoints, keep=config.train.keep_checkpoints))
        state = reload.start(experiment, saver)
        first = int(state.step)
        metrics = stack.enter_context(contextlib.closing(MetricsWriter(run.metrics, enabled=leads)))
        metrics.truncate_after(first)
        trials = stack.enter_context(TrialLog(run.trials, enabled=leads))
        trials.truncate_after(first - 1)
        if leads:
            print(plan.describe(experiment, first), file=sys.stderr, flush=True)
        if first < experiment.steps:
            memory = plan.compile_step(experiment, state, enabled=leads)
            if leads:
                print(memory, file=sys.stderr, flush=True)
        feed = Feed(experiment.train_batches(first), functools.partial(sharding.put_batch, experiment.mesh))
        stack.callback(feed.close)
        prober, searching = Prober(experiment), Stopwatch()
        before: Any = ()
        progress = stack.enter_context(Progress(experiment.steps, "train", start=first, enabled=leads))
        for step in range(first, experiment.steps):
            # 2. What does the algorithm want to know first, and to change?
            with searching:
                known, state = state.algorithm, algorithm.revise(state, step, prober.at(state, step))
            turn = algorithm.turn(step)
            if state.algorithm is not known or step == first:
                trials.follow(algorithm.trials(state.algorithm, step))
                progress.say(*algorithm.news(known, state.algorithm, step))
            # 3. Which subnets, on which images?
            subnets = algorithm.propose(state.algorithm, step)
            batch = next(feed)
            # 4. One update. Two are in flight, no more: memory stays bounded, and waiting for data shows.
            state, measured = turn.step(state, batch, subnets)
            jax.block_until_ready(before)
            before = measured

            # 5. Write down; stop if a loss is no longer a number.
            done = step + 1
            values: dict[str, float] = {}
            if done % config.train.log_every == 0 or done == experiment.steps:
                pace = {**feed.lap(), "time/search_seconds": searching.lap()}
                values = log(experiment, metrics, done, measured, algorithm.measure(state, done) | pace)
            progress.advance(1, **values)
            # 6. Keep.
            if done % config.train.checkpoint_every == 0 or done == experiment.steps:
                saver.save(done, {"state": state})
    return finish(experiment, state, run, command)


def log(
    experiment: Experiment,
    metrics: MetricsWriter,
    done: int,
    measured: Mapping[str, jax.Array],
    beside: Mapping[str, float],
) -> dict[str, float]:
    """Writes one line of metrics; returns what the progress line shows.

    Args:
      measured: by the step; `beside`: what else there is to write.

    Raises:
      RunError: if a loss is not finite.
    """
    values = {name: float(value) for name, value in sharding.fetch(dict(measured)).items()}
    values["learning_rate"] = float(experiment.schedule(done - 1))
    programs = experiment.algorithm.counts()
    counts = {"programs/live": programs.live, "programs/compiled": programs.compiled}
    metrics.write(done, {**values, **beside, **counts})
    for name, value in values.items():
        if name.endswith(("loss", "grad_norm")) and not math.isfinite(value):
            raise RunError(
                f"step {done}: {name} is {value}. Training stopped; the last checkpoint is intact. "
                "Lower optimizer.learning_rate, lengthen optimizer.warmup_epochs or set optimizer.clip_norm."
            )
    first = experiment.algorithm.turn(done - 1).step.slots[0].name
    return {"loss": values[f"{first}/loss"], "top1": values[f"{first}/top1"]}


def finish(experiment: Experiment, state: TrainState, run: RunDir, command: str) -> list[SubnetRow]:
    """Calibrates and evaluates the algorithm's subnets; writes what `results` does."""
    chosen = experiment.algorithm.choose(state, experiment.evaluation_subnets())
    rows = evaluate(experiment, state, chosen)
    if jax.process_index() == 0:
        results.write(experiment, chosen, rows, run, command)
    return rows
