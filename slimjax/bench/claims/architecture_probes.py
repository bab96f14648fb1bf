"""What claims about TF-NAS measure on a trained supernet (see `bench.probes`)."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from slimjax import sharding
from slimjax.bench import elasticity
from slimjax.bench.claims import search_probes
from slimjax.budgets import parse_budget
from slimjax.experiment.build import Experiment, Rows
from slimjax.models.tfnas import SKIP
from slimjax.nn import losses
from slimjax.nn.arrays import CHOICES
from slimjax.nn.space import Subnet
from slimjax.nn.structure import Mixture
from slimjax.step.engine import Engine
from slimjax.step.gradient import Forward
from slimjax.step.slots import Batch, Metrics
from slimjax.step.state import TrainState, Weights

PATHS = 32
"""Paths that a supernet's accuracy is the mean of."""

IMAGES = 500
"""Of each split that it is measured on."""

ARCHITECTURES = 100
"""Random ones that are scaled, each to several targets."""

CONSTANTS = (PATHS, IMAGES, ARCHITECTURES)


def supernet(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Mean scores of random paths by split: as in training, with sums over depths and the statistics of the batch.

    Paths have the widths that training ended with, and are the same for all arms of a seed.
    """
    space, seed = experiment.net.space, experiment.config.seed
    rows = space.random(PATHS, seed)
    rows[:, : len(space.groups)] = state.algorithm["subnet"][: len(space.groups)]
    sinks = experiment.algorithm.phases[-1].step.slots[0].mixture
    found = {}
    for split in ("train", "holdout"):
        batch = sharding.put_batch(experiment.mesh, _images(experiment, split))
        scores = sharding.fetch(
            [_score(experiment.engine, sinks, state.weights(), batch, row) for row in rows]
        )
        found[split] = {key: float(np.mean([score[key] for score in scores])) for key in ("top1", "loss")}
    return found


def operators(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """How evenly operators are selected, over the even share's entropy: 1 is evenly, 0 is one operator always.

    `selected`: entropy of the operators that the first path selects, counted over all blocks; `by_block`: mean of the
    blocks' own; `chosen`: of the likeliest operators, counted over all blocks. `largest_share`: of one operator among
    all that are selected.
    """
    logits = sharding.fetch(state.structure[CHOICES])
    names = [choice.name for choice in experiment.net.space.choices if not choice.ordered]
    shares = np.array([np.exp(logits[name] - np.logaddexp.reduce(logits[name])) for name in names])
    counts = np.bincount(shares.argmax(axis=1), minlength=shares.shape[1])
    return {
        "selected": _evenness(shares.mean(axis=0)),
        "by_block": float(np.mean([_evenness(row) for row in shares])),
        "chosen": _evenness(counts / len(names)),
        "largest_share": float(shares.mean(axis=0).max()),
    }


def architecture(experiment: Experiment, state: TrainState, last: Mapping[str, float]) -> dict[str, Any]:
    """The network that was found. Costs are over the target.

    `blocks`: how many it has that do something; `before`: its cost at the widths that it was trained with; `cost`: in
    the end; `fewest` and `most`: at the fewest and at the most channels.
    """
    del last
    net, found = experiment.net, _found(experiment, state)
    cost = parse_budget(experiment.config.algorithm.budget).share(net)
    groups = np.arange(len(net.space)) < len(net.space.groups)
    ends = {"before": state.algorithm["subnet"], "fewest": net.space.lowest, "most": net.space.largest}
    widths = {name: net.space.canonical(np.where(groups, end, found)) for name, end in ends.items()}
    chosen = net.space.to_channels(found).items()
    return {
        "blocks": sum(name.endswith("/operator") and option != SKIP for name, option in chosen),
        "operators": dict(collections.Counter(o for name, o in chosen if name.endswith("/operator"))),
        "cost": float(cost(found)),
        **{name: float(cost(subnet)) for name, subnet in widths.items()},
    }


def scaled(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Elasticity-scaling of random architectures to quantiles of their costs; fields as in `bench.elasticity`."""
    del state
    space, cost = experiment.net.space, parse_budget(experiment.config.algorithm.budget).share(experiment.net)
    rows = elasticity.architectures(space, ARCHITECTURES, experiment.config.seed)
    targets = np.quantile(cost(rows), elasticity.QUANTILES).tolist()
    parts = [elasticity.scaled(space, cost, rows, target) for target in targets]
    found = elasticity.summary(np.concatenate(parts))
    return {name: value for name, value in found.items() if not name.startswith("ms")}


def retrained(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Test scores of the network that was found, trained from scratch for as many epochs."""
    return search_probes.retrained(experiment, {"found": _found(experiment, state)})


def _found(experiment: Experiment, state: TrainState) -> Subnet:
    return experiment.algorithm.choose(state, None)["found"].subnet


def _images(experiment: Experiment, split: str) -> Rows:
    config = experiment.config.copy_and_resolve_references()
    config.scoring.update(split=split, images=IMAGES)
    return dataclasses.replace(experiment, config=config).scoring_batch(0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(engine: Engine, sinks: Mixture, weights: Weights, batch: Batch, path: jax.Array) -> Metrics:
    """Scores of one path on a batch."""
    forward = Forward(engine, engine.net.space.masked(path), Weights(None, None), sinks.weights)
    logits, _ = forward(None, weights, engine.prepare_test(batch["image"]))
    wanted = losses.smooth_labels(batch["label"], logits.shape[-1], 0.0)
    hits = losses.correct(logits, batch["label"])
    return {"top1": hits.mean(), "loss": losses.cross_entropy(logits, wanted)}


def _evenness(shares: np.ndarray) -> float:
    """Entropy over the most that so many shares can have."""
    return float(-(shares * np.log(np.maximum(shares, 1e-30))).sum() / np.log(len(shares)))
