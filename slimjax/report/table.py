"""Evaluated subnets: their rows, as JSON for programs and as a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from slimjax.files import write_atomic

SubnetRow = dict[str, Any]
"""One evaluated subnet. Keys, of which other verbs may add more and hand-made rows may lack some:

- `name`: of the subnet, such as "w0.50" or "macs<=0.5";
- `width`: the width multiplier (a fraction), or None for channels that are no uniform width;
- `channels`: integers by group;
- `macs`, `params`: counts;
- `top1`, `top1_uncalibrated`: from 0 to 1, with statistics of its own and with those of training (or None);
- `loss`: mean cross-entropy in nats;
- `latency_ms`: milliseconds by a table, where one was given.

In tables a value that is missing or None is a dash.
"""

DASH = "-"
COLUMNS = ("width", "MACs", "params", "top-1", "uncalibrated", "loss", "channels")


def format_table(rows: Sequence[SubnetRow]) -> str:
    """Returns the rows as lines of aligned columns, numbers to the right, channels last."""
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]])
        for line in lines
    )


def write_rows(path: epath.PathLike, rows: Sequence[SubnetRow]) -> None:
    """Writes the rows as a JSON list, wholly or not at all. Raises: ValueError for a NaN or an infinity."""
    write_atomic(path, json.dumps([dict(row) for row in rows], indent=1, allow_nan=False) + "\n")


def cells(row: SubnetRow) -> tuple[str, ...]:
    """One line of the table: text for each of `COLUMNS`."""
    width, channels = row.get("width"), row.get("channels")
    counts = channels.values() if isinstance(channels, Mapping) else channels or ()
    return (
        f"{width:.4g}" if isinstance(width, float) else DASH if width is None else str(width),
        count(row.get("macs")),
        count(row.get("params")),
        _percent(row.get("top1")),
        _percent(row.get("top1_uncalibrated")),
        DASH if row.get("loss") is None else f"{row['loss']:.4f}",
        " ".join(map(str, counts)) or DASH,
    )


def count(value: float | None) -> str:
    """Returns 40.81 M for 40812345."""
    if value is None:
        return DASH
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:.4g}"


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.2f}%"
