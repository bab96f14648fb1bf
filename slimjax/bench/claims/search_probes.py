"""What claims about width search measure on a trained network (see `bench.probes`).

Every way to find subnets is judged alike. Held-out training images choose: of the subnets that were looked at, those
on the front of held-out loss and MACs. They are calibrated, and their test loss, as a staircase over MACs from the
smallest network's to the largest's, has a mean height, the `area`. The test images choose nothing.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slimjax.algorithms import Chosen
from slimjax.bench.claims.fit import fit
from slimjax.experiment import measure, recipes
from slimjax.experiment.build import Experiment, build
from slimjax.nn.space import Subnet
from slimjax.search import pareto
from slimjax.search.base import Searcher
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.greedy import greedy
from slimjax.search.mobo import mobo
from slimjax.search.run import run as run_search
from slimjax.search.trials import TrialLog
from slimjax.step.state import TrainState
from slimjax.supernet import Supernet
from slimjax.vectors import WidthVectors
from slimjax.workdir import architecture
from slimjax.workdir.architecture import Architecture
from slimjax.workdir.rundir import RunDir

HOLDOUT = 500
TRIALS = 120
"""Subnets that a search after training looks at: as many as training with K = 10 does in 600 steps."""

TARGETS = (0.75, 0.5, 0.25)
"""Of the largest network's MACs, for slimming."""

FINE = 1000
"""Uniform widths that are tried; those with the same channels are one."""

CONSTANTS = (HOLDOUT, TRIALS, TARGETS)


def uniform(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """All subnets with one width for all groups."""
    return _front(experiment, state, _uniform_subnets(experiment.net))


def visited(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """The subnets of Joslim's history; `costs` are of those that the optimiser proposed, which begin at `cheapest`."""
    space = experiment.net.space
    trials = experiment.algorithm.trials(state.algorithm, int(state.step))
    subnets = np.stack([space.from_channels(trial.channels) for trial in trials])
    costs = [trial.cost for trial in trials if trial.how != "prior"]
    cheapest = float(WidthVectors(experiment.net).cost(space.smallest))
    return {**_front(experiment, state, subnets), "costs": costs, "cheapest": cheapest}


def searched(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """What Joslim's optimiser finds on the trained weights; `drawn` are costs of subnets of the training."""
    net, algorithm = experiment.net, experiment.algorithm
    vectors, score = WidthVectors(net), _scores(experiment, state)
    result = {}
    for bound in ("upper", "lower"):
        options, seed = BayesOptions(bound=bound), experiment.config.seed
        searcher = mobo(
            vectors.subnets,
            net.macs,
            net.space.largest,
            vectors.low,
            budgets=(),
            trials=TRIALS,
            options=options,
            seed=seed,
            encoding=vectors.encoding,
        )
        asked = vectors.subnets(_driven(searcher, score, net).fractions[:TRIALS])
        result[bound] = _front(experiment, state, asked)
    drawn = np.concatenate([algorithm.propose(state.algorithm, step) for step in range(TRIALS)])
    return {**result, "drawn": vectors.cost(drawn).tolist()}


def slimmed(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Greedily slimmed subnets and uniform ones of no fewer MACs, each set trained from scratch as one S-Net.

    `kept` is the share of its channels that each group keeps, by target, in the order of the network.
    """
    net = experiment.net
    full = float(net.macs(net.space.largest))
    searcher = greedy(net.space, net.macs, [target * full for target in TARGETS])
    found = searcher.found(_driven(searcher, _scores(experiment, state, "error"), net))
    slim = {f"target{target:g}": subnet for target, subnet in zip(TARGETS, found.values(), strict=True)}
    same = {name: no_cheaper(net, int(net.macs(subnet))) for name, subnet in slim.items()}
    return {
        "kept": {name: (subnet / net.space.largest).tolist() for name, subnet in slim.items()},
        "slimmed": retrained(experiment, slim),
        "uniform": retrained(experiment, same),
    }


def _front(experiment: Experiment, state: TrainState, subnets: Subnet) -> dict[str, Any]:
    """`area` of test loss, `top1_area` likewise, and how many of the subnets are on the front."""
    space, vectors = experiment.net.space, WidthVectors(experiment.net)
    subnets = np.unique(np.concatenate([subnets, space.smallest[None], space.largest[None]]), axis=0)
    held_out = _scores(experiment, state)(subnets)
    subnets, held_out = subnets[np.isfinite(held_out)], held_out[np.isfinite(held_out)]
    best = pareto.front(np.stack([held_out, vectors.cost(subnets)], axis=1))
    chosen = {str(number): Chosen(subnet) for number, subnet in enumerate(subnets[best])}
    rows = measure.evaluate(experiment, state, chosen, quiet=True)  # by MACs
    steps = np.diff([row["macs"] for row in rows], append=int(experiment.net.macs(space.largest)))
    share = steps / steps.sum()
    return {
        "area": float(share @ [row["loss"] for row in rows]),
        "top1_area": float(share @ [row["top1"] for row in rows]),
        "subnets": len(rows),
    }


def _scores(experiment: Experiment, state: TrainState, kind: str = "loss") -> Callable[[Subnet], np.ndarray]:
    """Scores on all held-out images."""
    config = experiment.config.copy_and_resolve_references()
    config.scoring.images = HOLDOUT
    return measure.Prober(dataclasses.replace(experiment, config=config)).at(state, 0, kind)


def _driven(searcher: Searcher, score: Callable[[Subnet], np.ndarray], net: Supernet) -> Any:
    """The last state of a search that keeps no log."""
    log = TrialLog("not-written.jsonl", enabled=False)
    return run_search(searcher, score, log, net.space, net.macs, how="bench")


def _uniform_subnets(net: Supernet) -> Subnet:
    widths = np.linspace(net.space.min_width, net.space.max_width, FINE)
    return np.unique(np.stack([net.space.uniform(float(width)) for width in widths]), axis=0)


def no_cheaper(net: Supernet, macs: int) -> Subnet:
    """The cheapest uniform subnet of so many MACs or more."""
    subnets = _uniform_subnets(net)
    costs = net.macs(subnets)
    return subnets[np.where(costs >= macs, costs, np.inf).argmin()]


def retrained(experiment: Experiment, subnets: Mapping[str, Subnet]) -> dict[str, Any]:
    """Test scores by name, after training from scratch as `slimjax search`'s retrain.py does."""
    net = experiment.net
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(folder)
        run.record(experiment.config.to_json_best_effort())
        for name, subnet in subnets.items():
            found = Architecture({}, net.space.to_channels(subnet), {"macs": int(net.macs(subnet))})
            architecture.write(Path(folder) / f"{name}.json", found)
        config = recipes.retrain(str(run.config), [str(Path(folder) / f"{name}.json") for name in subnets])
        again = build(config)
    _, state, _ = fit(again, f"{len(subnets)} subnets, seed {config.seed}")
    rows = measure.evaluate(again, state, again.algorithm.choose(state, None), quiet=True)
    return {row["name"]: {key: row[key] for key in ("loss", "top1", "macs")} for row in rows}
