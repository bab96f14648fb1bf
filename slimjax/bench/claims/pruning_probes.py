"""What claims about WPC and Joint Search-and-Training measure on a trained network (see `bench.probes`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from slimjax.algorithms import Chosen
from slimjax.bench.claims import search_probes
from slimjax.experiment import measure
from slimjax.experiment.build import Experiment
from slimjax.nn import filters
from slimjax.step.state import TrainState


def nested(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Test scores of the subnets that were found."""
    return {"found": _tested(experiment, state)}


def rivals(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Test scores of what is compared with the found subnets, trained from scratch for as many steps as the whole run.

    "snet": uniform subnets of no fewer MACs, together as one S-Net. "alone": each of the found ones alone.
    """
    net = experiment.net
    found = {name: choice.subnet for name, choice in _own(experiment, state).items()}
    same = {name: search_probes.no_cheaper(net, int(net.macs(subnet))) for name, subnet in found.items()}
    alone = [search_probes.retrained(experiment, {name: subnet}) for name, subnet in found.items()]
    return {
        "snet": search_probes.retrained(experiment, same),
        "alone": {name: row for rows in alone for name, row in rows.items()},
    }


def pruned(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Scores and survivors' norms after the last round, before the subnets are trained together.

    `norms`: of each subnet, the mean norm of the channels that it keeps, averaged over the groups.
    """
    copy = jax.tree.map(lambda x: x.copy(), state)  # a revision takes the old state's memory
    done = experiment.algorithm.revise(copy, experiment.steps, _no_scores)
    net, params = experiment.net, jax.device_get(done.params)
    norms = {}
    for name, choice in _own(experiment, done).items():
        own = filters.norms(net.records, filters.within(net.records, net.space, params, choice.subnet))
        kept = net.space.to_channels(choice.subnet)
        norms[name] = float(np.mean([np.asarray(norm)[: kept[group]].mean() for group, norm in own.items()]))
    return {"found": _tested(experiment, done), "norms": norms}


def penalised(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """What the last round's penalty does to channels above and below its threshold, at strength 1.

    `share`: of the channels that are below; `above`: the largest norm of a gradient above; `below`: the largest
    deviation from 1 of one below, where the plain lasso's is 1.
    """
    net, params = experiment.net, jax.device_get(state.params)
    knobs = state.algorithm["penalty"] | {"strength": np.float32(1)}
    gradient = jax.grad(filters.lasso_penalty(net.records, net.space))({"params": params}, knobs)["params"]
    pulled = filters.norms(net.records, gradient)
    norms = filters.norms(net.records, filters.within(net.records, net.space, params, knobs["active"]))
    above, below, count = [0.0], [1.0], 0
    for group, norm in norms.items():
        kept = int(knobs["active"][net.space.index[group]])
        own, pull = np.asarray(norm)[:kept], np.asarray(pulled[group])[:kept]
        small = own < float(knobs["clip"]) * own.mean() if math.isfinite(knobs["clip"]) else own > 0
        above += pull[~small].tolist()
        below += pull[small & (own > 0)].tolist()
        count += kept
    return {
        "share": (len(below) - 1) / count,
        "above": max(above),
        "below": float(np.abs(np.array(below) - 1).max()),
    }


def sampled(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """The subnets that were sampled, and what became of the best.

    `objective` is the fine-tuned subnet's test loss plus gamma times its share of the parameters; `reward`, the mean
    of the later half of the rewards; `distinct`, how many different subnets were sampled.
    """
    trials = experiment.algorithm.trials(state.algorithm, int(state.step))
    (row,) = _tested(experiment, state).values()
    share = row["params"] / float(experiment.net.params(experiment.net.space.largest))
    rewards = [-trial.score for trial in trials if trial.score is not None]
    return {
        "objective": row["loss"] + float(experiment.config.algorithm.params_weight) * share,
        "top1": row["top1"],
        "share": share,
        "reward": float(np.mean(rewards[len(rewards) // 2 :])),
        "distinct": len({tuple(trial.channels.values()) for trial in trials}),
    }


def _own(experiment: Experiment, state: TrainState) -> dict[str, Chosen]:
    return {name: c for name, c in experiment.algorithm.choose(state, None).items() if c.found}


def _tested(experiment: Experiment, state: TrainState) -> dict[str, Any]:
    rows = measure.evaluate(experiment, state, _own(experiment, state), quiet=True)
    return {row["name"]: {key: row[key] for key in ("loss", "top1", "macs", "params")} for row in rows}


def _no_scores(subnets: np.ndarray) -> np.ndarray:
    raise AssertionError(f"pruning asks for no scores, of {len(subnets)} subnets")
