"""Latency tables of others: brought in as one of ours, which then serves as any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from slimjax import supernet
from slimjax.checks import check, integer
from slimjax.cost import tfnas_table, units
from slimjax.cost.latency import IMPORTED, LatencyTable
from slimjax.profiling import profile


def take(path: epath.PathLike, network: Mapping[str, Any], device: str, batch: int) -> LatencyTable:
    """The table of a network from a file in TF-NAS's released form (`tfnas_table`).

    Args:
      network: arguments of `supernet.named`.
      device, batch: what the file was measured on, which it does not say.

    Raises:
      UserError: the file cannot be read, or lacks what the network has.
    """
    check("batch", batch, integer(1))
    net = supernet.named(**network)
    about = {
        "target": IMPORTED,
        "device": device,
        "method": IMPORTED,
        "network": dict(network),
        "image_shape": list(net.image_shape),
        "batch": batch,
        "dtype": network.get("dtype", "float32"),
        "repeats": None,
        "date": "unknown",
        "versions": {},
    }
    parts = units.divide(net.records)
    table = tfnas_table.to_table(tfnas_table.load(path), parts, net.space, about)
    steps = profile.staircase_tasks(table.entries, parts, net)
    entry, counts = table.entries[steps[0][0]], [sizes[0] for _, sizes in steps]
    read = np.interp(counts, entry.grid[0], entry.median_ms).tolist()
    found = {step: {"median_ms": ms} for step, ms in zip(steps, read, strict=True)}
    return dataclasses.replace(table, staircase=profile.staircase(steps, found))


def give(table: LatencyTable) -> tfnas_table.Released:
    """A table in TF-NAS's released form. Raises: UserError: its network has units that this form has no name for."""
    net = supernet.named(**table.about["network"])
    return tfnas_table.from_table(net.latency(table))
