"""`slimjax report --workdir A B`: the fronts of several runs, on one picture and in one table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from slimjax import report
from slimjax.errors import UserError
from slimjax.report import FrontRow
from slimjax.search import pareto, trials


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left behind.

    Args:
      name: of its directory.
      rows: of its front.json.
      visited: costs of the subnets that a search tried, fractions of the largest network's; empty: no search.
    """

    name: str
    rows: Sequence[FrontRow]
    visited: Sequence[float]

    @property
    def points(self) -> np.ndarray:
        """float [N, 2]: loss and MACs of each subnet."""
        return np.array([(row["loss"], row["macs"]) for row in self.rows], np.float64)


def load(directory: str) -> Run:
    """Raises: UserError: the run has no front yet, or a file of it is damaged."""
    folder = epath.Path(directory)
    if not (folder / "front.json").exists():
        raise UserError(f"--workdir {directory}: expected a finished run, but it has no front.json.")
    try:
        rows = json.loads((folder / "front.json").read_text())
        run = Run(folder.name, rows, _visited(folder / "trials.jsonl"))
        if not run.points.size or not np.isfinite(run.points).all():
            raise ValueError("none, or numbers that are not finite")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'front.json'}: expected rows with loss and macs ({error}).") from error
    return run


def write(path: epath.PathLike, directories: Sequence[str], command: str) -> list[dict[str, Any]]:
    """Writes the page; returns what `compare` says of each run."""
    runs = [load(directory) for directory in directories]
    if len(runs) > len(report.SERIES):
        raise UserError(f"--workdir: expected at most {len(report.SERIES)} runs, got {len(runs)}.")
    if len({run.name for run in runs}) < len(runs):
        runs = [dataclasses.replace(run, name=path) for run, path in zip(runs, directories, strict=True)]
    compared = compare(runs)
    fronts = {run.name: [(row["macs"], row["top1"]) for row in run.rows] for run in runs}
    histograms = {run.name: run.visited for run in runs if run.visited}
    report.write_fronts(path, fronts=fronts, visited=histograms, summaries=compared, command=command)
    return compared


def compare(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each run: subnets, `area` and `hypervolume`, both over the range of MACs that all runs share.

    `area` is the mean over MACs of the lowest loss within them (Joslim's objective, section 3.1); `hypervolume`
    is the share of the box from the cheapest common MACs to the most, and from a loss of 0 to the worst, that
    the subnets dominate.
    """
    points = [run.points for run in runs]
    high = max(float(p[:, 1].max()) for p in points)
    low = max(float(p[:, 1].min()) for p in points)
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


def _visited(path: epath.Path) -> list[float]:
    if not path.exists():
        return []
    return [t.cost for t in trials.latest(trials.read(path)).values() if t.cost is not None]
