"""Latency tables as a page for people: the staircase of each, and what each is."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from etils import epath

from slimjax.cost.latency import LatencyTable
from slimjax.report.draw import Curve
from slimjax.report.page import write_latencies


def write(path: epath.PathLike, tables: Sequence[LatencyTable], command: str) -> None:
    """Writes one HTML page about tables, which may be of several networks and targets."""
    networks = dict.fromkeys(table.about["network"]["name"] for table in tables)
    write_latencies(
        path,
        title=f"Latency of {', '.join(networks)}",
        curves=[curve(table) for table in tables if table.staircase is not None],
        summaries=[summary(table) for table in tables],
        command=command,
    )


def curve(table: LatencyTable) -> Curve:
    """The table's staircase, and the profiled points that interpolation joins."""
    stairs = table.staircase
    assert stairs is not None
    entry, letter = table.entries[stairs.unit], string.ascii_lowercase[stairs.axis]
    others = tuple(slice(None) if i == stairs.axis else -1 for i in range(len(entry.grid)))
    return Curve(
        title=stairs.unit,
        label=f"{table.about['target']} ({table.about['method']})",
        xlabel=f"channels of {letter}, the other axes full; batch {table.about['batch']}",
        every=(stairs.channels, stairs.median_ms),
        profiled=(entry.grid[stairs.axis].tolist(), np.asarray(entry.median_ms[others]).tolist()),
    )


def summary(table: LatencyTable) -> dict[str, str]:
    """One line of the page's table."""
    found = table.summary()
    return {
        "network": found["network"]["name"],
        "target": found["target"],
        "method": found["method"],
        "batch": str(found["batch"]),
        "dtype": found["dtype"],
        "units": str(found["units"]),
        "entries": str(found["entries"]),
        "outliers": str(found["outliers"]),
        "spread": f"{found['median_relative_spread']:.1%}",
        "date": found["date"],
        "device": found["device"],
    }
