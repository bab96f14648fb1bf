"""What `slimjax report --workdir A B` draws: the fronts of several runs, in a few pictures and one table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from slimjax import supernet
from slimjax.cost import latency
from slimjax.cost.latency import LatencyTable
from slimjax.errors import UserError
from slimjax.experiment import build
from slimjax.report import page
from slimjax.report.draw import SERIES, Fronts, Panel
from slimjax.report.table import SubnetRow
from slimjax.search import pareto, trials
from slimjax.workdir.rundir import RunDir

NEAR = (0.25, 0.5, 0.75)
"""Where channels are drawn: shares of the way from the least cost that all runs have to the most."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left behind.

    Args:
      name: of its directory.
      rows: of its subnets, with `latency_ms` if there is a table.
      visited: costs of the subnets that a search tried, fractions of the largest network's; empty: no search.
    """

    name: str
    rows: Sequence[SubnetRow]
    visited: Sequence[float]

    def points(self, cost: str = "macs") -> np.ndarray:
        """float [N, 2]: loss and cost of each subnet."""
        return np.array([(row["loss"], row[cost]) for row in self.rows], np.float64)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """In network order; None: not all rows say their channels by group, or the network has choices."""
        named = {tuple(row["channels"]) for row in self.rows if _all_channels(row.get("channels"))}
        return named.pop() if len(named) == 1 else None


def _all_channels(channels: Any) -> bool:
    return isinstance(channels, Mapping) and all(isinstance(count, int) for count in channels.values())


def load(directory: str, table: LatencyTable | None = None) -> Run:
    """What a run left behind.

    Raises:
      UserError: the run has no rows yet, a file of it is damaged, another schema's slimjax wrote it, or the table
        is of another network.
    """
    kept = RunDir(directory)
    kept.check_schema()
    if not kept.front.exists():
        raise UserError(f"--workdir {directory}: expected a finished run, but it has no {kept.front.name}.")
    try:
        rows = json.loads(kept.front.read_text())
        run = Run(kept.path.name, rows, _visited(kept.trials))
        if not run.points().size or not np.isfinite(run.points()).all():
            raise ValueError("none, or numbers that are not finite")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{kept.front}: expected rows with loss and macs ({error}).") from error
    return run if table is None else dataclasses.replace(run, rows=_timed(rows, kept, table))


def write(
    path: epath.PathLike, directories: Sequence[str], command: str, table: str | None = None
) -> list[dict[str, Any]]:
    """Writes the page; returns what `compare` says of each run.

    Args:
      table: of latencies: the runs are compared by milliseconds too.
    """
    times = None if table is None else latency.load(table)
    runs = [load(directory, times) for directory in directories]
    if len(runs) > len(SERIES):
        raise UserError(f"--workdir: expected at most {len(SERIES)} runs, got {len(runs)}.")
    if len({run.name for run in runs}) < len(runs):
        runs = [dataclasses.replace(run, name=path) for run, path in zip(runs, directories, strict=True)]
    drawn, compared = [_fronts(runs, "macs", "MACs", "MACs")], compare(runs)
    if times is not None:
        drawn.append(_fronts(runs, "latency_ms", _name(times), "ms"))
        timed = compare(runs, "latency_ms")
        extra = [{f"latency_{key}": row[key] for key in ("area", "hypervolume")} for row in timed]
        compared = [row | more for row, more in zip(compared, extra, strict=True)]
    histograms = {run.name: run.visited for run in runs if run.visited}
    page.write_fronts(
        path, fronts=drawn, visited=histograms, summaries=compared, command=command, notes=_left_out(runs)
    )
    return compared


def compare(runs: Sequence[Run], cost: str = "macs") -> list[dict[str, Any]]:
    """For each run: subnets, `area` and `hypervolume`, both over the range of costs that all runs share.

    `area` is the mean over the cost of the lowest loss within it (Joslim's objective, section 3.1); `hypervolume`
    is the share of the box from the cheapest common cost to the most, and from a loss of 0 to the worst, that
    the subnets dominate.
    """
    points = [run.points(cost) for run in runs]
    low, high = _range(points)
    worst = max(float(p[:, 0].max()) for p in points)
    result = []
    for run, own in zip(runs, points, strict=True):
        area = pareto.area(own, low, high) if high > low else float(own[:, 0].min())
        volume = (
            pareto.hypervolume(own, np.array([worst, high])) / (worst * (high - low)) if high > low else 0.0
        )
        best = max(row["top1"] for row in run.rows)
        result.append(
            {
                "run": run.name,
                "subnets": len(run.rows),
                "area": area,
                "hypervolume": volume,
                "best_top1": best,
                "visited": len(run.visited),
            }
        )
    return result


def _name(table: LatencyTable) -> str:
    about = table.about
    return f"ms by the table of {about['target']} ({about['method']}), batch {about['batch']}"


def _left_out(runs: Sequence[Run]) -> list[str]:
    """What the pictures of channels lack, in sentences."""
    first = runs[0]
    return [
        f"{run.name} is not in the pictures of channels: its groups are not those of {first.name}."
        for run in runs
        if first.groups is not None and run.groups != first.groups
    ]


def _range(points: Sequence[np.ndarray]) -> tuple[float, float]:
    """From the least cost that all runs have to the most that any has."""
    return max(float(p[:, 1].min()) for p in points), max(float(p[:, 1].max()) for p in points)


def _fronts(runs: Sequence[Run], cost: str, label: str, suffix: str) -> Fronts:
    """The runs by a cost, a key of their rows."""
    groups = runs[0].groups
    points = {run.name: [(row[cost], row["top1"]) for row in run.rows] for run in runs}
    if groups is None:
        return Fronts(label, suffix, points, (), ())
    alike = [run for run in runs if run.groups == groups]
    full = {group: max(row["channels"][group] for run in alike for row in run.rows) for group in groups}
    low, high = _range([run.points(cost) for run in alike])
    panels = [_panel(alike, cost, low + share * (high - low), full) for share in NEAR]
    return Fronts(label, suffix, points, groups, panels)


def _panel(runs: Sequence[Run], cost: str, near: float, full: Mapping[str, int]) -> Panel:
    """Each run's subnet nearest to a cost; `full` are the channels that count as all."""
    rows = {run.name: min(run.rows, key=lambda row: abs(row[cost] - near)) for run in runs}
    shares = {name: [row["channels"][group] / full[group] for group in full] for name, row in rows.items()}
    return Panel(near, {name: (row[cost], shares[name]) for name, row in rows.items()})


def _timed(rows: Sequence[SubnetRow], kept: RunDir, table: LatencyTable) -> list[SubnetRow]:
    """Rows with the milliseconds of the run's own network."""
    net = supernet.named(**build.read_network(kept.read_config()))
    subnets = np.stack([net.space.from_channels(row["channels"]) for row in rows])
    times = net.latency(table)(subnets)
    return [{**row, "latency_ms": float(ms)} for row, ms in zip(rows, times, strict=True)]


def _visited(path: epath.Path) -> list[float]:
    if not path.exists():
        return []
    return [t.cost for t in trials.latest(trials.read(path)).values() if t.cost is not None]
