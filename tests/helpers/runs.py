"""Short runs: their configs, their directories, and what they left there."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from helpers import flags
from helpers.paths import REPOSITORY
from slimjax import sharding
from slimjax.experiment import recipes, reload
from slimjax.experiment.build import build
from slimjax.experiment.loop import train
from slimjax.workdir.checkpoint import Checkpointer
from slimjax.workdir.rundir import RunDir

CONFIG = "configs/digits_usnet.py"


def small(**train_fields) -> ConfigDict:
    """Digits, a tiny ResNet-8, ten steps."""
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("usnet")
    config.model.options = ConfigDict({"channels": (4, 4, 8)})
    config.train.update(steps=10, batch_size=32, log_every=1, checkpoint_every=5)
    config.train.update(train_fields)
    config.calibration.update(images=128, batch_size=64)
    config.evaluation.update(widths=(0.25, 0.6, 1.0), batch_size=256)
    config.engine.policy = "masked"  # one program for all widths: the least to compile
    config.devices = 1
    return config


def untrained(config: ConfigDict, directory) -> str:
    """The directory, made that of a run with a checkpoint of untrained weights."""
    experiment = build(config)
    state = sharding.put_replicated(experiment.mesh, experiment.algorithm.init(0))
    with contextlib.ExitStack() as stack:
        stack.enter_context(RunDir(directory).claim(config.to_json_best_effort()))
        stack.enter_context(Checkpointer(RunDir(directory).checkpoints)).save(1, {"state": state})
    return str(directory)


def final_state(config: ConfigDict, directory):
    return jax.tree.map(np.asarray, reload.newest_state(build(config), RunDir(directory)))


def lines(directory) -> list[dict]:
    return [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]


def losses(directory) -> np.ndarray:
    return np.array([line["max/loss"] for line in lines(directory)])


def stop_after(config: ConfigDict, directory, step: int) -> None:
    """Runs until just after the checkpoint of `step`, then dies."""

    class Stop(Exception):
        pass

    real = Checkpointer.save

    def save(self, at, *args, **kwargs):
        real(self, at, *args, **kwargs)
        self.wait()
        if at == step:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "save", save)
        with pytest.raises(Stop):
            train(config, str(directory))


def environment(**extra: str) -> dict[str, str]:
    """Of a child that has one device, and compiles as users' programs are compiled if no `XLA_FLAGS` are given."""
    kept = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return {**kept, "JAX_PLATFORMS": "cpu", **extra}


VICTIM = """
import os, signal, sys
from slimjax.experiment import config_file, loop
config, directory, last, overrides = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
log = loop.log
def fatal(experiment, metrics, done, *rest):
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return log(experiment, metrics, done, *rest)
loop.log = fatal
loop.train(config_file.load(config, overrides), directory)
"""


def unbroken_and_killed(
    config: str, overrides: Sequence[str], directory: Path, steps: int, kills: Sequence[int] | None = None
) -> list[Path]:
    """Two runs: an unbroken one, and one in which every step is killed (SIGKILL) when it is done but not saved.

    So every checkpoint, also at every boundary of phases, is one that a run goes on from, and every step is made twice.

    Args:
      kills: the steps that are killed, from 1; None: all.
    """
    whole, killed = directory / "unbroken", directory / "killed"
    ends = [*(range(1, steps + 1) if kills is None else kills), steps + 1]
    for where, last in [(whole, steps + 1), *((killed, last) for last in ends)]:
        done = subprocess.run(
            [
                *(sys.executable, "-c", VICTIM, config, str(where), str(last), *overrides),
                *("--config.train.log_every=1", "--config.train.checkpoint_every=1", "--config.devices=1"),
            ],
            cwd=REPOSITORY,
            env=environment(XLA_FLAGS=flags.QUICK),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if last <= steps else 0), done.stderr
    return [whole, killed]


QUICK = {"raw_samples": 32, "restarts": 2}


def short_run(directory):
    """The workdir of a short Joslim run."""
    config = small(steps=24, checkpoint_every=24)
    config.algorithm = recipes.algorithm("joslim", steps_per_round=2)
    config.algorithm.search = ConfigDict(QUICK)
    config.data.holdout = 200
    config.scoring.images = 64
    config.evaluation.widths = (1.0,)
    train(config, str(directory))
    return str(directory)


def flat(config: ConfigDict, prefix: str = "") -> dict:
    """Dotted names and values."""
    parts = [
        flat(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else {prefix + key: value}
        for key, value in config.items()
    ]
    return {key: value for part in parts for key, value in part.items()}
