"""Training one network of an arm: no checkpoints, one set of programs for all seeds."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from slimjax import sharding
from slimjax.experiment.build import Experiment, build_algorithm
from slimjax.experiment.measure import Prober
from slimjax.progress import Progress
from slimjax.step.state import TrainState, place

LAST_STEPS = 20
"""Training metrics are means over so many last steps."""

Trained = tuple[Experiment, TrainState, dict[str, float]]
"""What was trained, the last state, and the metrics of the last steps."""


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The experiment with other weights, images and proposals, and with the same compiled programs."""
    config = experiment.config.copy_and_resolve_references()
    config.seed = seed
    for name in ("sampling_seed", "search_seed"):
        if name in config.algorithm:
            config.algorithm[name] += 1_000 * seed
    algorithm = build_algorithm(config, experiment.engine)._replace(phases=experiment.algorithm.phases)
    return dataclasses.replace(experiment, config=config, algorithm=algorithm)


def fit(experiment: Experiment, label: str) -> Trained:
    """A trained state, by the steps of `train.train`."""
    algorithm = experiment.algorithm
    state = place(experiment.mesh, algorithm.init(experiment.config.seed))
    batches, prober, history = experiment.train_batches(), Prober(experiment), []
    with Progress(experiment.steps, label, stream=sys.stderr) as progress:
        for step in range(experiment.steps):
            state = algorithm.revise(state, step, prober.at(state, step))
            subnets = algorithm.propose(state.algorithm, step)
            batch = sharding.put_batch(experiment.mesh, next(batches))
            state, metrics = algorithm.turn(step).step(state, batch, subnets)
            history.append(metrics)
            progress.advance()
    batches.close()
    last = sharding.fetch(history[-LAST_STEPS:])
    last = [metrics for metrics in last if metrics.keys() == last[-1].keys()]  # of the last phase
    return experiment, state, {key: float(np.mean([m[key] for m in last])) for key in last[-1]}
