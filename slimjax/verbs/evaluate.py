"""`slimjax evaluate`: any widths of a finished or running training, from its newest checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from slimjax.experiment import reload
from slimjax.experiment.build import Experiment
from slimjax.experiment.measure import evaluate
from slimjax.nn.space import Subnet
from slimjax.nn.widths import width_name
from slimjax.report.table import SubnetRow
from slimjax.verbs.answers import print_rows, start_jax
from slimjax.workdir.rundir import RunDir


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    start_jax()
    print_rows(arguments, evaluate_subnets(arguments.workdir, arguments.widths, arguments.subnet))


def evaluate_subnets(
    directory: str, widths: Sequence[float] | None = None, channels: Mapping[str, int | str] | None = None
) -> list[SubnetRow]:
    """Rows as training writes them, of the asked-for subnets; by default of those that it reported.

    Raises:
      UserError: no run or no checkpoint in the directory, one of another schema, or an illegal width.
    """
    run_dir = RunDir(directory)
    experiment = reload.experiment_of(run_dir)
    wanted = asked(experiment, widths, channels)
    state = reload.newest_state(experiment, run_dir)
    return evaluate(experiment, state, experiment.algorithm.choose(state, wanted))


def asked(
    experiment: Experiment, widths: Sequence[float] | None, channels: Mapping[str, int | str] | None
) -> dict[str, Subnet] | None:
    """The asked-for subnets by name."""
    if widths is None and channels is None:
        return experiment.evaluation_subnets()
    space = experiment.net.space
    subnets = {width_name(width): space.uniform(width) for width in widths or ()}
    return subnets if channels is None else {**subnets, "subnet": space.from_channels(channels)}
