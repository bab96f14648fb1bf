"""What a run leaves behind for people: rows, a report, and files of the subnets that it has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from slimjax.algorithms.base import Chosen
from slimjax.experiment import recipes
from slimjax.experiment.build import Experiment, network
from slimjax.files import write_atomic
from slimjax.report import page, table
from slimjax.report.table import SubnetRow
from slimjax.workdir import architecture
from slimjax.workdir import metrics as metrics_file
from slimjax.workdir.architecture import Architecture
from slimjax.workdir.rundir import RunDir, SearchDir


def write(
    experiment: Experiment,
    chosen: Mapping[str, Chosen],
    rows: Sequence[SubnetRow],
    run: RunDir,
    command: str,
) -> None:
    """Rows and report of a finished training, and what `write_found` writes of subnets that it has found itself."""
    config = experiment.config
    table.write_rows(run.front, rows)
    page.write_report(
        run.report,
        title=f"{config.model.name} on {config.data.name}, {config.algorithm.name}",
        rows=list(rows),
        command=command,
        metrics=metrics_file.read(run.metrics),
    )
    if own := [row for row in rows if chosen[row["name"]].found]:
        about = {row["name"]: {"method": config.algorithm.name, "subnet": row["name"]} for row in own}
        costs = {row["name"]: chosen[row["name"]].costs for row in own}
        write_found(experiment, run, run.search(config.algorithm.name), own, about, costs)


def write_found(
    experiment: Experiment,
    run: RunDir,
    folder: SearchDir,
    rows: Sequence[SubnetRow],
    how: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> None:
    """An architecture file for each row, the rows, and a config that trains the subnets from scratch.

    Args:
      run: whose config they are trained with.
      how: each was found, by the row's name.
      costs: by the row's name, what it costs beside MACs and parameters.
    """
    config = experiment.config
    described = network(config, experiment.net.image_shape, experiment.dataset.info.num_classes)
    command = f"slimjax train --config {folder.retrain} --workdir {folder.retrained}"
    paths = {}
    for row in rows:
        all_costs = {"macs": row["macs"], "params": row["params"], **costs.get(row["name"], {})}
        accuracy = {"top1": row["top1"], "loss": row["loss"]}
        path = folder.architecture(row["name"])
        found = Architecture(described, row["channels"], all_costs, accuracy, how[row["name"]], command)
        architecture.write(path, found)
        paths[path.stem] = str(path)
    table.write_rows(folder.front, rows)
    names = ", ".join(map(repr, ("all", *paths)))
    text = RETRAIN.format(run=str(run.config), paths=paths, names=names, settings=recipes.retraining(config))
    write_atomic(folder.retrain, text)


RETRAIN = '''"""Trains subnets that were found from scratch: all as one S-Net, or one alone (`retrain.py:only=NAME`)."""

from typing import Literal

from slimjax.experiment import recipes

FOUND = {paths!r}


def get_config(only: Literal[{names}] = "all"):
    paths = [*FOUND.values()] if only == "all" else [FOUND[only]]
    return recipes.retrain({run!r}, paths, settings={settings!r})
'''
