"""Calibrates named subnets and measures them: one row per subnet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from slimjax import sharding
from slimjax.algorithms import Chosen
from slimjax.algorithms.base import Score
from slimjax.experiment.build import Experiment, Rows
from slimjax.nn import batch_stats
from slimjax.nn.space import Subnet
from slimjax.nn.widths import named_width
from slimjax.progress import Progress
from slimjax.report.table import SubnetRow
from slimjax.step.scoring import Scorer
from slimjax.step.state import TrainState


def evaluate(
    experiment: Experiment, state: TrainState, chosen: Mapping[str, Chosen], *, quiet: bool = False
) -> list[SubnetRow]:
    """Calibrates every chosen subnet on its own, and tests it with and without calibration."""
    stats = calibrate(experiment, state, chosen)
    rows = []
    with Progress(len(chosen), "evaluate", noun="subnet", enabled=_leads() and not quiet) as progress:
        for name, choice in chosen.items():
            after = test(experiment, state, choice, stats[name])
            before = test(experiment, state, choice, state.statistics(choice.stats)) if choice.stats else None
            rows.append(_row(experiment, name, choice, after, before))
            progress.advance()
    return sorted(rows, key=lambda row: row["macs"])


def calibrate(
    experiment: Experiment, state: TrainState, chosen: Mapping[str, Chosen]
) -> dict[str, batch_stats.Collection]:
    """Statistics of every chosen subnet, in one pass over the calibration images.

    All subnets that share gammas and betas also share one compiled program (they run masked).
    """
    like = experiment.net.variable_shapes["batch_stats"]
    stats: dict[str, batch_stats.Collection] = {}
    for affine in dict.fromkeys(choice.affine for choice in chosen.values()):
        subnets = {name: choice.subnet for name, choice in chosen.items() if choice.affine == affine}
        batches = _on_devices(experiment, experiment.calibration_batches())
        stats |= batch_stats.calibrate(experiment.engine.collect(state, affine), like, subnets, batches)
    return stats


def test(
    experiment: Experiment, state: TrainState, choice: Chosen, stats: batch_stats.Collection
) -> dict[str, float]:
    """top1 (0 to 1) and mean cross-entropy of a subnet over the evaluation split, with its statistics `stats`."""
    sums = [
        experiment.engine.test(state, choice.affine, stats, choice.subnet, batch)
        for batch in _on_devices(experiment, experiment.evaluation_batches())
    ]
    totals = {name: sum(float(batch[name]) for batch in sharding.fetch(sums)) for name in sums[0]}
    return {"top1": totals["correct"] / totals["count"], "loss": totals["loss"] / totals["count"]}


class Prober:
    """Scores of subnets on the config's scoring images, for searches; its programs are kept."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @functools.cached_property
    def _scorer(self) -> Scorer:
        """Made when first used: choosing rungs takes a while, and most runs score nothing."""
        steps = self._experiment.algorithm.steps()
        return Scorer(self._experiment.engine, np.concatenate([step.expected for step in steps]))

    def at(self, state: TrainState, step: int, kind: str = "loss") -> Score:
        """A function of subnets [N, G]: "loss" or "error" [N] with the weights of `state`, on the step's own batch."""

        read: Callable[[], Any] = functools.cache(lambda: self._experiment.scoring_batch(step))

        def score(subnets: Subnet) -> np.ndarray:
            return self._scorer(state, subnets, read())[kind]

        return score


def _row(
    experiment: Experiment,
    name: str,
    choice: Chosen,
    after: Mapping[str, float],
    before: Mapping[str, float] | None,
) -> SubnetRow:
    net = experiment.net
    return {
        "name": name,
        "width": named_width(name),
        "channels": net.space.to_channels(choice.subnet),
        "macs": int(net.macs(choice.subnet)),
        "params": int(net.params(choice.subnet)),
        "top1": after["top1"],
        "top1_uncalibrated": before["top1"] if before else None,
        "loss": after["loss"],
    }


def _on_devices(experiment: Experiment, rows: Iterable[Rows]) -> Iterable[dict[str, jax.Array]]:
    return (sharding.put_batch(experiment.mesh, batch) for batch in rows)


def _leads() -> bool:
    return jax.process_index() == 0
