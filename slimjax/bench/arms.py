"""The trained networks that claims are decided on: each arm is one config, run with several seeds.

What is measured on a trained network is a JSON object, appended to a file as soon as it is known, so that
an interrupted bench goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from slimjax import evaluate, json_file, recipes, sharding
from slimjax.algorithms import Chosen
from slimjax.build import Experiment, build
from slimjax.progress import Progress
from slimjax.state import TrainState, place
from slimjax.widths import width_name

WIDTHS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SWITCHES = (0.25, 0.5, 0.75, 1.0)
CALIBRATION_IMAGES = (16, 64, 256, 1024, 2048)
LAST_STEPS = 20
"""Training metrics are means over so many last steps."""


def base() -> ConfigDict:
    """A task on which widths differ: 1,000 of the embedded MNIST images, ResNet-8 of 8, 16 and 32 channels."""
    config = recipes.embedded("mnist5k")
    config.algorithm = recipes.usnet()
    config.model.options = ConfigDict({"channels": (8, 16, 32), "stem_stride": 2})
    config.data.train_examples = 1000
    config.train.steps = 500
    config.calibration.update(images=1024, batch_size=64)
    return config


@dataclasses.dataclass(frozen=True)
class Arm:
    """A change of the base config, and what is measured on the result."""

    change: Callable[[ConfigDict], Any]
    probes: tuple[str, ...] = ("sweep",)


def _usnet(**options: Any) -> Callable[[ConfigDict], Any]:
    return lambda config: config.algorithm.update(options)


def _range(min_width: float) -> Callable[[ConfigDict], Any]:
    return lambda config: config.model.update(min_width=min_width)


def _snet(**options: Any) -> Callable[[ConfigDict], Any]:
    def change(config: ConfigDict) -> None:
        config.algorithm = recipes.snet(SWITCHES)
        config.algorithm.update(options)

    return change


def _plain(config: ConfigDict) -> None:
    config.algorithm = recipes.snet((1.0,))
    config.algorithm.update(private_affine=False)


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "usnet": Arm(_usnet(), ("sweep", "calibration_images")),
        "labels only": Arm(_usnet(student_target="labels")),
        "labels and teacher": Arm(_usnet(student_target="both")),
        "random only": Arm(_usnet(student_target="labels", sample_max=False, sample_min=False)),
        "max and random": Arm(_usnet(student_target="labels", sample_min=False)),
        "min and random": Arm(_usnet(student_target="labels", sample_max=False)),
        "range .35 to 1": Arm(_range(0.35), ("ends",)),
        "range .05 to 1": Arm(_range(0.05), ("ends",)),
        "plain": Arm(_plain),
        "private norms": Arm(_snet(), ("switches",)),
        "shared affine, private statistics": Arm(_snet(private_affine=False), ("switches", "weights")),
        "naive shared norms": Arm(_snet(private_affine=False, private_stats=False), ("switches", "weights")),
    }
)

Trained = tuple[Experiment, TrainState, dict[str, float]]


def run(names: Sequence[str], seeds: int, store: Path) -> dict[str, list[dict[str, Any]]]:
    """Measurements of each arm by seed; those that the store holds are not made again."""
    known = _load(store)
    for name in names:
        missing = [seed for seed in range(seeds) if (name, seed) not in known]
        if missing:
            known |= _run_arm(name, missing, store)
    return {name: [known[name, seed] for seed in range(seeds)] for name in names}


def _run_arm(name: str, seeds: Sequence[int], store: Path) -> dict[tuple[str, int], dict[str, Any]]:
    config = base()
    ARMS[name].change(config)
    experiment, measured = build(config), {}
    for seed in seeds:
        trained = _fit(
            dataclasses.replace(experiment, config=_with_seed(config, seed)), f"{name}, seed {seed}"
        )
        measured[name, seed] = {probe: PROBES[probe](*trained) for probe in ARMS[name].probes}
        _append(store, {"arm": name, "seed": seed, "task": _task(name), **measured[name, seed]})
    return measured


def _fit(experiment: Experiment, label: str) -> Trained:
    """A trained state without checkpoints; one program serves all seeds of an arm."""
    seed, algorithm = experiment.config.seed, experiment.algorithm
    state = place(experiment.mesh, algorithm.init(seed))
    batches, history = experiment.train_batches(), []
    with Progress(experiment.steps, label, stream=sys.stderr) as progress:
        for step in range(experiment.steps):
            # Proposals are a function of the step: far apart for different seeds.
            subnets = algorithm.propose(state.algorithm, step + 1_000_000 * seed)
            batch = sharding.put_batch(experiment.mesh, next(batches))
            state, metrics = algorithm.step(state, batch, subnets)
            history.append(metrics)
            progress.advance()
    batches.close()
    last = sharding.fetch(history[-LAST_STEPS:])
    return experiment, state, {key: float(np.mean([m[key] for m in last])) for key in last[0]}


def _sweep(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Calibrated and uncalibrated scores at every width."""
    space = experiment.net.space
    chosen = {width_name(w): Chosen(space.uniform(w), stats=_borrowed(state)) for w in WIDTHS}
    rows = evaluate.evaluate(experiment, state, chosen, quiet=True)
    like = experiment.net.variable_shapes["batch_stats"]
    untouched = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full(x.shape, float(path[-1].key == "var"), x.dtype), like
    )
    for row in rows:
        initial = evaluate.score(experiment, state, chosen[row["name"]], untouched)
        row["top1_initial_statistics"] = initial["top1"]
    return {row["name"]: _scores(row) for row in rows}


def _ends(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """Calibrated scores at widths that both ranges hold."""
    chosen = {width_name(w): Chosen(experiment.net.space.uniform(w)) for w in (0.35, 1.0)}
    return {row["name"]: _scores(row) for row in evaluate.evaluate(experiment, state, chosen, quiet=True)}


def _switches(experiment: Experiment, state: TrainState, last: Mapping[str, float]) -> dict[str, Any]:
    """Per switch: test scores with the running statistics of training, and training accuracy."""
    result = {}
    for name, choice in experiment.algorithm.finish(state, None).items():
        assert choice.stats is not None
        score = evaluate.score(experiment, state, choice, state.batch_stats[choice.stats])
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
        rows = evaluate.evaluate(changed, state, chosen, quiet=True)
        result[str(images)] = {row["name"]: _scores(row) for row in rows}
    return result


def _weights(experiment: Experiment, state: TrainState, _: Mapping[str, float]) -> dict[str, Any]:
    """A digest of all trained weights, and each array's norm."""
    del experiment
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.trainable)]
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    return {"sha256": digest, "norms": [float(np.linalg.norm(leaf)) for leaf in leaves]}


PROBES: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {
        "sweep": _sweep,
        "ends": _ends,
        "switches": _switches,
        "calibration_images": _calibration_images,
        "weights": _weights,
    }
)


def _borrowed(state: TrainState) -> str | None:
    """The widest network's running statistics, if training kept them."""
    return next((name for name in ("max", "w1.00") if name in state.batch_stats), None)


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith(("top1", "loss"))}


def _with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    changed.seed = seed
    return changed


def _task(name: str) -> str:
    """A fingerprint of the arm's config: measurements of another task are not mixed in."""
    config = base()
    ARMS[name].change(config)
    text = config.to_json_best_effort(sort_keys=True) + repr((WIDTHS, SWITCHES, CALIBRATION_IMAGES))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(store: Path) -> dict[tuple[str, int], dict[str, Any]]:
    lines = store.read_text().splitlines(keepends=True) if store.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {(r["arm"], r["seed"]): r for r in records if r["arm"] in ARMS and r["task"] == _task(r["arm"])}


def _append(store: Path, record: Mapping[str, Any]) -> None:
    with json_file.open_lines(store) as file:
        file.write(json.dumps(record) + "\n")
