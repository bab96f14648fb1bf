"""`slimjax evaluate`: any widths of a finished or running training, from its newest checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.experiment.build import Experiment, build
from slimjax.experiment.loop import checkpoints, restore
from slimjax.experiment.measure import FrontRow, evaluate
from slimjax.nn.space import Subnet
from slimjax.nn.widths import width_name
from slimjax.step.state import TrainState
from slimjax.verbs.answers import print_rows, start_jax
from slimjax.workdir.checkpoint import Checkpointer


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    start_jax()
    print_rows(arguments, evaluate_subnets(arguments.workdir, arguments.widths, arguments.subnet))


def evaluate_subnets(
    directory: str, widths: Sequence[float] | None = None, channels: Mapping[str, int] | None = None
) -> list[FrontRow]:
    """Rows as in front.json for the asked-for subnets; by default those that training reported.

    Raises:
      UserError: no run or no checkpoint in the directory, or an illegal width.
    """
    experiment = build(load_config(directory))
    wanted = asked(experiment, widths, channels)
    state = load_state(experiment, directory)
    return evaluate(experiment, state, experiment.algorithm.choose(state, wanted))


def load_state(experiment: Experiment, directory: str) -> TrainState:
    """The newest checkpoint of a run. Raises: UserError: there is none."""
    with Checkpointer(checkpoints(directory), read_only=True) as saver:
        state = restore(experiment, saver)
    if state is None:
        raise UserError(
            f"{directory}: no checkpoint yet. Train first: slimjax train --workdir {directory} ..."
        )
    return state


def asked(
    experiment: Experiment, widths: Sequence[float] | None, channels: Mapping[str, int] | None
) -> dict[str, Subnet] | None:
    """The asked-for subnets by name."""
    if widths is None and channels is None:
        return experiment.evaluation_subnets()
    space = experiment.net.space
    subnets = {width_name(width): space.uniform(width) for width in widths or ()}
    return subnets if channels is None else {**subnets, "subnet": space.from_channels(channels)}


def load_config(directory: str) -> ConfigDict:
    """The config that a run wrote down."""
    path = epath.Path(directory) / "config.json"
    if not path.exists():
        raise UserError(f"--workdir {directory}: expected a training run, but it has no config.json.")
    try:
        values: Any = json.loads(path.read_text())
        return ConfigDict(values)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected the config of a run as JSON ({error}). Restore the file."
        ) from error
