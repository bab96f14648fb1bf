"""Building a latency table: which entries a network needs, and reading them."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slimjax import supernet
from slimjax.checks import check, check_fields, if_given, integer, number, one_of
from slimjax.cost import units
from slimjax.cost.latency import Entry, LatencyTable, Staircase
from slimjax.cost.units import Unit
from slimjax.nn.widths import TILE
from slimjax.profiling import meters, sweep
from slimjax.profiling.meters import Reading
from slimjax.profiling.readings import Readings, Task
from slimjax.profiling.sweep import Ask
from slimjax.supernet import Supernet

CACHE = "~/.cache/slimjax/latency"

FILLED = 4
"""Channels that hardware computes at a time, at least."""

STAIRS = 64
"""Channel counts of the picture of a table."""

_RULES = {
    "target": one_of(*meters.targets()),
    "batch": integer(1),
    "repeats": integer(1),
    "retries": integer(0),
    "timeout_seconds": number(0, above=True),
    "processes": if_given(integer(1)),
}

Grid = tuple[np.ndarray, ...]
"""For each axis of a unit, ascending channel counts."""


@dataclasses.dataclass(frozen=True)
class ProfileRequest:
    """What is profiled and how.

    Args:
      network: arguments of `supernet.named`.
      target: of `meters.targets`: "cpu", "gpu", "tpu" (attached); "tpu-v4" and its like (compiled for);
        "roofline:DEVICE".
      repeats: timed rounds of a measurement.
      timeout_seconds: for one entry.
      processes: children at work; None: one to measure, else one per core.
      cache: folder of readings.
      reuse: True takes from the cache whatever fits, False nothing. None: what the same call left there when it was
        interrupted, if the target is measured; whatever fits, if it is not, for then it would be read as it was.

    Raises:
      BadValue: an unknown target, or counts that are none.
    """

    network: Mapping[str, Any]
    target: str
    batch: int = 32
    repeats: int = 7
    retries: int = 2
    timeout_seconds: float = 300.0
    processes: int | None = None
    cache: str = CACHE
    reuse: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    @property
    def dtype(self) -> str:
        return str(self.network.get("dtype", "float32"))

    def net(self) -> Supernet:
        return supernet.named(**self.network)

    @contextmanager
    def askers(self) -> Iterator[tuple[dict[str, Any], list[Ask]]]:
        """(device and versions, what answers tasks)."""
        count = self.processes or (1 if self.target in meters.MEASURED else os.cpu_count() or 1)
        spec = {
            "network": dict(self.network),
            "target": self.target,
            "batch": self.batch,
            "repeats": self.repeats,
        }
        with sweep.workers(count, spec, self.timeout_seconds) as found:
            yield found

    def readings(self, hello: Mapping[str, Any], call: Mapping[str, Any], **more: Any) -> Readings:
        """The cached readings that were made like these: same device, versions, batch, type and repeats.

        Args:
          call: what is asked for; a call that asks for the same goes on where this one is interrupted.
        """
        how = {"target": self.target, "batch": self.batch, "dtype": self.dtype, "repeats": self.repeats}
        name = f"{self.target.replace(':', '-')}-{_digest({**how, **hello, **more})}.jsonl"
        whatever = None if self.target in meters.MEASURED else True
        reuse = whatever if self.reuse is None else self.reuse
        own = _digest({"network": dict(self.network), **call})
        return Readings(Path(self.cache).expanduser() / name, own, reuse)

    def about(self, hello: Mapping[str, Any], net: Supernet, read: float) -> dict[str, Any]:
        """A table's words about itself (`latency.ABOUT`); `read`: when its oldest entry was, since the epoch."""
        return {
            "target": self.target,
            "device": hello["device"],
            "method": meters.method(self.target),
            "network": dict(self.network),
            "image_shape": list(net.image_shape),
            "batch": self.batch,
            "dtype": self.dtype,
            "repeats": self.repeats,
            "date": datetime.datetime.fromtimestamp(read, datetime.UTC).date().isoformat(),
            "versions": hello["versions"],
        }


def run(request: ProfileRequest, points: int = 5) -> tuple[LatencyTable, dict[str, Any]]:
    """The table of a network, and where its readings come from (`Readings.origin`).

    Args:
      points: channel counts along each axis of a unit with two; one axis alone gets their square, three get
        one fewer each. On a TPU, with fewer images than a tile has lanes, there are both sides of as many edges of
        tiles instead, where latency jumps.

    Raises:
      UserError: unknown names, or a device that is not there.
      RunError: entries that failed again and again; all others are in the cache.
    """
    check("points", points, integer(3))
    net = request.net()
    parts = units.divide(net.records)
    in_lanes = request.target.startswith("tpu") and request.batch < TILE
    grids = choose_grids(parts, net, points, TILE if in_lanes else None)
    tasks = [sweep.OVERHEAD, *(task for key, grid in grids.items() for task in _tasks(key, grid))]
    with request.askers() as (hello, askers):
        readings = request.readings(hello, {"points": points})
        sweep.sweep(tasks, askers, readings, request.retries)
        entries = {key: _entry(key, grid, readings) for key, grid in grids.items()}
        steps = staircase_tasks(entries, parts, net)
        sweep.sweep(steps, askers, readings, request.retries, "staircase")
    readings.end()
    overhead = readings.found[sweep.OVERHEAD]["median_ms"]
    about = request.about(hello, net, readings.oldest())
    return LatencyTable(about, overhead, entries, staircase(steps, readings.found)), readings.origin()


def _digest(words: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]


def choose_grids(
    parts: Sequence[Unit], net: Supernet, points: int, tile: int | None = None
) -> dict[str, Grid]:
    """For each key, channel counts over all that the space allows, on its rounding's steps.

    Args:
      tile: channels that the hardware computes at once; None: no edge of it is looked for.
    """
    return {
        key: tuple(_along(counts, _count(len(axes), points), tile) for counts in axes)
        for key, axes in units.legal_counts(parts, net.space).items()
    }


def _along(legal: np.ndarray, count: int, tile: int | None) -> np.ndarray:
    """Counts of one axis: evenly spread; or the ends and both sides of edges of tiles, if it has any within."""
    edges = np.arange(tile, legal[-1], tile) if tile else np.array([], int)
    edges = edges[edges >= legal[0]]
    if not len(edges):
        return _spread(legal, count)
    some = edges[np.unique(np.linspace(0, len(edges) - 1, min(count - 1, len(edges))).astype(int))]
    sides = [side for edge in some for side in (legal[legal <= edge][-1], legal[legal > edge][0])]
    return np.unique([legal[0], *sides, legal[-1]])


def staircase_tasks(entries: Mapping[str, Entry], parts: Sequence[Unit], net: Supernet) -> list[Task]:
    """Legal counts along the widest axis of the unit that costs most, the other axes being full; `STAIRS` at most."""

    def rank(part: Unit) -> tuple[float, int]:  # of those that share a key, the widest
        return float(entries[part.key].median_ms.max()), sum(group.channels for group in part.axes)

    costliest = max((part for part in parts if part.axes), key=rank)
    full = [group.channels for group in costliest.axes]
    axis = full.index(max(full))
    counts = _spread(net.space.legal(costliest.axes[axis]), STAIRS)
    return [(costliest.key, (*full[:axis], int(count), *full[axis + 1 :])) for count in counts]


def staircase(tasks: Sequence[Task], found: Mapping[Task, Reading]) -> Staircase:
    """The picture of what was read for `staircase_tasks`."""
    key, first = tasks[0]
    axis = next((i for i, n in enumerate(first) if n != tasks[-1][1][i]), 0)
    channels = tuple(sizes[axis] for _, sizes in tasks)
    return Staircase(key, axis, channels, tuple(found[task]["median_ms"] for task in tasks))


def _count(axes: int, points: int) -> int:
    return {1: points * points, 2: points}.get(axes, points - 1)


def _spread(legal: np.ndarray, count: int) -> np.ndarray:
    """`count` of the legal values at most, nearest to even distances, both ends among them.

    Hardware fills channels up to a multiple of four or more, and latency rises in such steps. Where the legal
    counts are finer than that, the inner points lie in the middle of a step: interpolation is then above
    as much as below. Of two that are as near, the one with more factors of two is taken.
    """
    if count >= len(legal):
        return legal
    wanted = np.linspace(legal[0], legal[-1], count)
    middles = legal[legal % FILLED == FILLED // 2]
    inner = middles if len(middles) >= count - 2 and np.diff(legal).min() < FILLED // 2 else legal
    nearest = [min(inner.tolist(), key=lambda n: (abs(n - value), -(n & -n))) for value in wanted[1:-1]]
    return np.unique([legal[0], *nearest, legal[-1]])


def _tasks(key: str, grid: Grid) -> list[Task]:
    return [(key, sizes) for sizes in itertools.product(*(axis.tolist() for axis in grid))]


def _entry(key: str, grid: Grid, readings: Readings) -> Entry:
    found = [readings.found[task] for task in _tasks(key, grid)]
    shape = tuple(len(axis) for axis in grid)
    median, spread = (
        np.array([r[name] for r in found]).reshape(shape) for name in ("median_ms", "spread_ms")
    )
    outliers = np.argwhere(np.array([r["outlier"] for r in found]).reshape(shape))
    return Entry(grid, median, spread, tuple(tuple(position) for position in outliers.tolist()))
