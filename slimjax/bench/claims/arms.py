"""The trained networks that claims are decided on: each arm is one config, run with several seeds.

What is measured on a trained network is a JSON object, appended to a file as soon as it is known, so that
an interrupted bench goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from slimjax import files
from slimjax.bench.claims import probes, search_probes
from slimjax.bench.claims.fit import fit, with_seed
from slimjax.experiment import recipes
from slimjax.experiment.build import build
from slimjax.experiment.config import complete


def base() -> ConfigDict:
    """A task on which widths differ: 1,000 of the embedded MNIST images, ResNet-8 of 8, 16 and 32 channels."""
    config = recipes.embedded("mnist5k")
    config.algorithm = recipes.algorithm("usnet")
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
        config.algorithm = recipes.algorithm("snet", widths=probes.SWITCHES, **options)

    return change


def _plain(config: ConfigDict) -> None:
    config.algorithm = recipes.algorithm("snet", widths=(1.0,), private_affine=False)


def _search(
    algorithm: str, channels: tuple[int, ...] = (8, 16, 32), **options: Any
) -> Callable[[ConfigDict], Any]:
    """Joslim's range of widths, held-out images, and more steps; one program serves all subnets."""

    def change(config: ConfigDict) -> None:
        config.algorithm = recipes.algorithm(algorithm, **options)
        config.model.min_width = 0.42
        config.model.options.channels = channels
        config.data.holdout = search_probes.HOLDOUT
        config.train.steps = 600
        config.engine.policy = "masked"

    return change


def _joslim(probes: tuple[str, ...] = ("visited",), steps_per_round: int = 10, **options: Any) -> Arm:
    return Arm(_search("joslim", steps_per_round=steps_per_round, **options), probes)


def _slimming(config: ConfigDict) -> None:
    """AutoSlim's supernet is 1.5 times as wide as the network that it competes with."""
    _search("usnet", channels=(12, 24, 48))(config)
    config.model.min_width = 0.25


def _pruned(clip: float = 1.0, fused: float = 300.0) -> Callable[[ConfigDict], Any]:
    """Lengths are updates."""

    def change(config: ConfigDict) -> None:
        lengths = {"dense": 300.0, "lasso": 100.0, "fused": fused}
        config.algorithm = recipes.algorithm("wpc", clip=clip, **lengths)
        config.model.min_width = 0.1
        config.train.steps = int(300 + 3 * 100 + fused)
        config.engine.policy = "masked"

    return change


def _sampled(**options: Any) -> Arm:
    """Joint Search-and-Training with the paper's T = 30. Lengths are updates."""

    def change(config: ConfigDict) -> None:
        lengths = {"coarse": 150.0, "weights": 10.0, "alphas": 5.0, "fine_tuning": 150.0}
        config.algorithm = recipes.algorithm("jst", **lengths, **options)
        config.model.min_width = 0.1
        config.data.holdout = search_probes.HOLDOUT
        config.scoring.images = search_probes.HOLDOUT
        config.train.steps = 150 + 30 * 15 + 150
        config.engine.policy = "masked"

    return Arm(change, ("sampled",))


NETWORK: Mapping[str, Any] = MappingProxyType(
    {
        "stages": ((2, 8, 2, "relu"), (2, 12, 2, "swish"), (2, 16, 2, "swish")),
        "operators": ("k3e3", "k3e6", "k5e3", "k5e6"),
        "stem": 8,
        "first": 8,
        "tail": 64,
        "stem_stride": 2,
    }
)
"""TF-NAS's supernet for small images: four operators in each of six blocks."""


def _nas(*also: str, sinks: bool = True, **options: Any) -> Arm:
    """TF-NAS, its structure parameters learnt faster than in the paper, whose search has 128,000 of their updates."""

    def change(config: ConfigDict) -> None:
        recipes.tfnas(config, warmup=5, search=20, budget="macs<=0.4")
        config.algorithm.update(arch_rate=0.05, **options)
        config.model.options = ConfigDict({**NETWORK, "sinks": sinks})
        config.data.holdout = search_probes.HOLDOUT
        config.train.steps = None
        config.engine.policy = "masked"

    return Arm(change, ("architecture", *also))


_PATHS = ("supernet", "operators")

SMALL = (4, 8, 16)
"""Channels of a network that is less over-parameterised."""

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
        "uniform widths": Arm(_search("usnet"), ("uniform",)),
        "two stages": Arm(_search("bignas", dropout=0.0, zero_last_gammas=False), ("searched",)),
        "joslim": _joslim(("visited", "uniform")),
        "joslim, lower bound": _joslim(("visited", "uniform"), search={"bound": "lower"}),
        "joslim, random weight": _joslim(search={"random_lambda": True}),
        "joslim, lower bound, random weight": _joslim(search={"bound": "lower", "random_lambda": True}),
        "joslim, scored once": _joslim(rescore=False),
        "joslim, K = 5": _joslim(steps_per_round=5),
        "joslim, K = 30": _joslim(steps_per_round=30),
        "uniform widths, small": Arm(_search("usnet", SMALL), ("uniform",)),
        "joslim, small": _joslim(channels=SMALL),
        "slimming": Arm(_slimming, ("slimmed",)),
        "clipped lasso": Arm(_pruned(), ("nested", "rivals")),
        "plain lasso": Arm(_pruned(clip=math.inf), ("nested",)),
        "clipped lasso, pruned only": Arm(_pruned(fused=0.0), ("pruned", "penalised")),
        "plain lasso, pruned only": Arm(_pruned(clip=math.inf, fused=0.0), ("pruned", "penalised")),
        "learned thresholds": _sampled(),
        "learned thresholds, no noise": _sampled(noise="none"),
        "thresholds at random": _sampled(controller_rate=1e-12),
        "one threshold, .55": _sampled(thresholds=(0.55,)),
        "one threshold, .65": _sampled(thresholds=(0.65,)),
        "one threshold, .65, no noise": _sampled(thresholds=(0.65,), noise="none"),
        "one threshold, .75": _sampled(thresholds=(0.75,)),
        "random second path": _nas(*_PATHS, "scaled", "retrained"),
        "one path": _nas(*_PATHS, second_path="none"),
        "gumbel second path": _nas(*_PATHS, second_path="gumbel"),
        "likeliest second path": _nas(*_PATHS, second_path="max"),
        "least likely second path": _nas(*_PATHS, second_path="min"),
        "skip is an operator": _nas("retrained", sinks=False),
        "linear cost": _nas(cost_loss="linear"),
        "linear cost, not scaled": _nas(cost_loss="linear", elasticity=False),
        "log cost": _nas(cost_loss="log"),
        "log cost, not scaled": _nas(cost_loss="log", elasticity=False),
    }
)


def run(names: Sequence[str], seeds: int, store: Path) -> dict[str, list[dict[str, Any]]]:
    """Measurements of each arm by seed; those that the store holds are not made again."""
    known = _load(store)
    for name in names:
        missing = [seed for seed in range(seeds) if (name, seed) not in known]
        if missing:
            known |= _run_arm(name, missing, store)
    return {name: [known[name, seed] for seed in range(seeds)] for name in names}


def _run_arm(name: str, seeds: Sequence[int], store: Path) -> dict[tuple[str, int], dict[str, Any]]:
    experiment, measured = build(_config(name)), {}
    for seed in seeds:
        trained = fit(with_seed(experiment, seed), f"{name}, seed {seed}")
        measured[name, seed] = {probe: probes.PROBES[probe](*trained) for probe in ARMS[name].probes}
        _append(store, {"arm": name, "seed": seed, "task": _task(name), **measured[name, seed]})
    return measured


def _config(name: str) -> ConfigDict:
    config = base()
    ARMS[name].change(config)
    complete(config)
    return config


def _task(name: str) -> str:
    """A fingerprint of the arm's config: measurements of another task are not mixed in."""
    text = _config(name).to_json_best_effort(sort_keys=True) + repr((ARMS[name].probes, probes.CONSTANTS))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(store: Path) -> dict[tuple[str, int], dict[str, Any]]:
    lines = store.read_text().splitlines(keepends=True) if store.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {(r["arm"], r["seed"]): r for r in records if r["arm"] in ARMS and r["task"] == _task(r["arm"])}


def _append(store: Path, record: Mapping[str, Any]) -> None:
    with files.open_lines(store) as file:
        file.write(json.dumps(record) + "\n")
