"""What a run's directory holds, in memory again: its experiment and its newest state."""

from __future__ import annotations

import dataclasses

import jax

from slimjax import sharding
from slimjax.errors import UserError
from slimjax.experiment.build import Experiment, build
from slimjax.step.state import TrainState, place
from slimjax.workdir.checkpoint import Checkpointer
from slimjax.workdir.rundir import RunDir


def experiment_of(run: RunDir) -> Experiment:
    """Builds what the run's config says. Raises: UserError: no run, a damaged one, or one of another schema."""
    return build(run.read_config())


def newest_state(experiment: Experiment, run: RunDir) -> TrainState:
    """The newest checkpoint of a run that may still be training. Raises: UserError: there is none."""
    with Checkpointer(run.checkpoints, read_only=True) as saver:
        state = restore(experiment, saver)
    if state is None:
        raise UserError(f"{run}: no checkpoint yet. Train first: slimjax train --workdir {run} ...")
    return state


def start(experiment: Experiment, saver: Checkpointer) -> TrainState:
    """The state to go on from: the newest checkpoint, else a fresh one. Its step tells the next batch."""
    restored = restore(experiment, saver)
    if restored is not None:
        return restored
    return place(experiment.mesh, experiment.algorithm.init(experiment.config.seed))


def restore(experiment: Experiment, saver: Checkpointer) -> TrainState | None:
    """The newest checkpointed state, placed on this run's devices."""
    like = jax.eval_shape(lambda: experiment.algorithm.init(experiment.config.seed))
    restored = saver.restore(sharding.abstract({"state": like}, sharding.replicated(experiment.mesh)))
    if restored is None:
        return None
    state = restored.tree["state"]
    return dataclasses.replace(state, algorithm=sharding.fetch(state.algorithm))
