"""What claims measure on a trained network: functions (experiment, state, last metrics) -> a JSON object."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from slimjax.algorithms import Chosen
from slimjax.bench.claims import architecture_probes, pruning_probes, search_probes
from slimjax.experiment import measure
from slimjax.experiment.build import Experiment
from slimjax.nn.widths import width_name
from slimjax.step.state import TrainState

WIDTHS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SWITCHES = (0.25, 0.5, 0.75, 1.0)
CALIBRATION_IMAGES = (16, 64, 256, 1024, 2048)


def _sweep(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Calibrated and uncalibrated scores at every width."""
    space = experiment.net.space
    chosen = {width_name(w): Chosen(space.uniform(w), stats=_borrowed(state)) for w in WIDTHS}
    rows = measure.evaluate(experiment, state, chosen, quiet=True)
    like = experiment.net.variable_shapes["batch_stats"]
    untouched = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full(x.shape, float(path[-1].key == "var"), x.dtype), like
    )
    for row in rows:
        initial = measure.test(experiment, state, chosen[row["name"]], untouched)
        row["top1_initial_statistics"] = initial["top1"]
    return {row["name"]: _scores(row) for row in rows}


def _ends(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Calibrated scores at widths that both ranges hold."""
    chosen = {width_name(w): Chosen(experiment.net.space.uniform(w)) for w in (0.35, 1.0)}
    return {row["name"]: _scores(row) for row in measure.evaluate(experiment, state, chosen, quiet=True)}


def _switches(experiment: Experiment, state: TrainState, last: Mapping[str, float]) -> dict[str, Any]:
    """Per switch: test scores with the running statistics of training, and training accuracy."""
    result = {}
    for name, choice in experiment.algorithm.choose(state, None).items():
        assert choice.stats is not None
        score = measure.test(experiment, state, choice, state.statistics(choice.stats))
        result[name] = {**score, "train_top1": last[f"{name}/top1"]}
    return result


def _calibration_images(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Scores by number of calibration images, in batches of 16 (the smallest number's)."""
    space, result = experiment.net.space, {}
    chosen = {width_name(w): Chosen(space.uniform(w)) for w in (0.25, 0.5, 1.0)}
    for images in CALIBRATION_IMAGES:
        config = experiment.config.copy_and_resolve_references()
        config.calibration.update(images=images, batch_size=16)
        changed = dataclasses.replace(experiment, config=config)
        rows = measure.evaluate(changed, state, chosen, quiet=True)
        result[str(images)] = {row["name"]: _scores(row) for row in rows}
    return result


def _weights(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """A digest of all trained weights, and each array's norm."""
    del experiment
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.trainable)]
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    return {"sha256": digest, "norms": [float(np.linalg.norm(leaf)) for leaf in leaves]}


def _borrowed(state: TrainState) -> str | None:
    """The widest network's running statistics, if training kept them."""
    return next((name for name in ("max", "w1.00") if name in state.batch_stats), None)


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith(("top1", "loss"))}


PROBES: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {
        "sweep": _sweep,
        "ends": _ends,
        "switches": _switches,
        "calibration_images": _calibration_images,
        "weights": _weights,
        "uniform": search_probes.uniform,
        "visited": search_probes.visited,
        "searched": search_probes.searched,
        "slimmed": search_probes.slimmed,
        "nested": pruning_probes.nested,
        "rivals": pruning_probes.rivals,
        "pruned": pruning_probes.pruned,
        "penalised": pruning_probes.penalised,
        "sampled": pruning_probes.sampled,
        "supernet": architecture_probes.supernet,
        "operators": architecture_probes.operators,
        "architecture": architecture_probes.architecture,
        "scaled": architecture_probes.scaled,
        "retrained": architecture_probes.retrained,
    }
)
CONSTANTS = (WIDTHS, SWITCHES, CALIBRATION_IMAGES, *search_probes.CONSTANTS, *architecture_probes.CONSTANTS)
"""What measurements depend on, beside an arm's config."""
