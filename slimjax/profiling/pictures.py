"""Latency tables as a page for people: the staircase of each, and what each is."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from etils import epath

from slimjax import supernet
from slimjax.cost.latency import LatencyTable
from slimjax.errors import UserError
from slimjax.report.draw import SERIES, Curve, Scatter
from slimjax.report.page import write_latencies
from slimjax.workdir.architecture import Architecture

SAMPLE = 1000
"""Random subnets that architectures are drawn among."""


def write(
    path: epath.PathLike,
    tables: Sequence[LatencyTable],
    command: str,
    architectures: Mapping[str, Architecture] = MappingProxyType({}),
) -> None:
    """Writes one HTML page about tables, which may be of several networks and targets.

    Args:
      architectures: of one network, by name; drawn by their milliseconds on two tables of it.

    Raises:
      UserError: more architectures than have colours, or not two tables beside them.
    """
    networks = dict.fromkeys(table.about["network"]["name"] for table in tables)
    write_latencies(
        path,
        title=f"Latency of {', '.join(networks)}",
        curves=[curve(table) for table in tables if table.staircase is not None],
        summaries=[summary(table) for table in tables],
        command=command,
        scatter=two_devices(tables, architectures) if architectures else None,
    )


def two_devices(tables: Sequence[LatencyTable], architectures: Mapping[str, Architecture]) -> Scatter:
    """Architectures of one network, and random subnets of it, by their milliseconds on two tables."""
    if len(tables) != 2 or len(architectures) > len(SERIES):
        raise UserError(
            f"--architectures: expected two tables and one to {len(SERIES)} architectures, got "
            f"{len(tables)} tables and {len(architectures)} architectures."
        )
    net = supernet.named(**next(iter(architectures.values())).network)
    one, other = (net.latency(table) for table in tables)
    rows = net.space.random(SAMPLE, seed=0)
    found = {name: file.subnet(net.space) for name, file in architectures.items()}
    return Scatter(
        labels=_axes_of(tables),
        cloud=(one(rows).tolist(), other(rows).tolist()),
        marked={name: (float(one(subnet)), float(other(subnet))) for name, subnet in found.items()},
    )


def _axes_of(tables: Sequence[LatencyTable]) -> tuple[str, str]:
    first, second = (
        f"ms, {table.about['target']} ({table.about['method']}), batch {table.about['batch']}"
        for table in tables
    )
    return first, second


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
