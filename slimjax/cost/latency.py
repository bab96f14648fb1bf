"""Latency tables: milliseconds of a network's units over their channels, and the cost model made of them.

A table is one JSON file (docs/formats.md). The latency of a subnet is the sum over its units, each
interpolated linearly between the channel counts that were profiled, plus what one program call costs.
Looking it up is a pure function of channel counts, on the host and inside `jit`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from slimjax import files
from slimjax.checks import check, number
from slimjax.cost.gates import Gates, Weights
from slimjax.cost.units import Unit
from slimjax.errors import UserError
from slimjax.files import write_atomic
from slimjax.nn.space import Space

SCHEMA = 1

ABOUT = (
    "target",
    "device",
    "method",
    "network",
    "image_shape",
    "batch",
    "dtype",
    "repeats",
    "date",
    "versions",
)
"""What a table says about itself. `method`: "measured", "compiler estimate", "roofline", or "imported"."""

IMPORTED = "imported"
"""Method and target of a table of others: how it was measured is not known here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One unit's latencies on a grid of channel counts.

    Args:
      grid: for each axis of the unit, ascending channel counts.
      median_ms, spread_ms: [len(grid[0]), len(grid[1]), ...]; the spread is the interquartile range, 0 for estimates.
      outliers: positions in the grid whose measurements stayed unsteady.
    """

    grid: tuple[np.ndarray, ...]
    median_ms: np.ndarray
    spread_ms: np.ndarray
    outliers: tuple[tuple[int, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Staircase:
    """One unit's latency at many channel counts of one axis, the others being full: what interpolation misses."""

    unit: str
    axis: int
    channels: tuple[int, ...]
    median_ms: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
    """Entries by unit key, what they are (`ABOUT`), and the milliseconds that calling any program costs.

    Args:
      staircase: for the picture; looking a latency up does not use it.
      repaired: the share of entries that `monotone` changed and its largest relative change; None: as profiled.
    """

    about: Mapping[str, Any]
    overhead_ms: float
    entries: Mapping[str, Entry]
    staircase: Staircase | None = None
    repaired: Mapping[str, float] | None = None

    def summary(self) -> dict[str, Any]:
        """What it is and how large, how steady, how repaired."""
        spreads = np.concatenate([(e.spread_ms / e.median_ms).ravel() for e in self.entries.values()])
        return {
            **self.about,
            "units": len(self.entries),
            "entries": len(spreads),
            "outliers": sum(len(entry.outliers) for entry in self.entries.values()),
            "median_relative_spread": float(np.median(spreads)),
            "repaired": self.repaired,
        }

    def save(self, path: epath.PathLike) -> None:
        """Writes the table wholly or not at all."""
        body = _to_json(self)
        write_atomic(
            path, json.dumps({**body, "checksum": _checksum(body)}, indent=1, allow_nan=False) + "\n"
        )


class Latency:
    """Milliseconds of subnets: a function of channel counts [..., G].

    Channels may be integers or floats on the host, or JAX arrays, also inside `jit`; the result is piecewise
    linear in them, so its gradient is the slope between two profiled counts. JAX arrays outside the profiled
    range take the value at its end; on the host that is an error.
    """

    def __init__(self, table: LatencyTable, units: Sequence[Unit], space: Space) -> None:
        """Raises: UserError: naming the units that the table lacks, and the command that profiles them."""
        missing = [key for key in dict.fromkeys(unit.key for unit in units) if key not in table.entries]
        if missing:
            raise UserError(_missing(table.about, missing))
        self.table, self.space = table, space
        self.units = [(unit, [space.index[group.name] for group in unit.axes]) for unit in units]
        self._gates = Gates.of(space, [unit.under for unit in units])
        place = {under: i for i, under in enumerate(self._gates.unders)}
        self._under = np.array([place[unit.under] for unit in units])

    def __call__(self, subnets: Any) -> Any:
        """Milliseconds [...]."""
        return self.soft(subnets, {})

    def soft(self, subnets: Any, weights: Weights) -> Any:
        """The expected milliseconds where choices take their options with probabilities `weights` [..., options].

        With one-hot weights it is the latency of a subnet. Differentiable in both, for JAX arrays.

        Paper: Hu et al., TF-NAS, ECCV 2020, equations 6 and 7.
        """
        if not self.space.choices:
            return self.table.overhead_ms + (self.per_unit(subnets) - self.table.overhead_ms).sum(-1)
        floats = subnets if isinstance(subnets, jax.Array) else np.asarray(subnets, np.float64)
        shares = self._gates(floats, weights)[..., self._under]
        used = _used(shares)
        parts = self._columns(subnets, used) - self.table.overhead_ms
        return self.table.overhead_ms + (parts * shares[..., used]).sum(-1)

    def per_unit(self, channels: Any) -> Any:
        """Milliseconds [..., U] of each unit called alone, in call order, whatever choices take."""
        return self._columns(channels, np.arange(len(self.units)))

    def _columns(self, channels: Any, which: np.ndarray) -> Any:
        """Milliseconds [..., units] of some units, by their positions."""
        channels = channels if isinstance(channels, jax.Array) else np.asarray(channels)
        columns = [
            _interpolate(
                unit.key, self.table.entries[unit.key], [channels[..., i] for i in indices], channels
            )
            for unit, indices in (self.units[i] for i in which)
        ]
        return (jnp if isinstance(channels, jax.Array) else np).stack(columns, -1)


def load(path: epath.PathLike) -> LatencyTable:
    """Reads a table.

    Raises:
      UserError: no such file; cut off or changed since it was written; of another schema; not finite or not
        positive. The message has the path and what to do.
    """
    missing = f"Make one: slimjax profile --out {path} ..."
    return files.load(path, "latency table", SCHEMA, _from_json, missing, REBUILD)


REBUILD = "Run the same slimjax profile command again: what it has measured is in its cache"


def monotone(table: LatencyTable) -> LatencyTable:
    """The table with latencies that do not fall when channels rise: the mean of the tightest rising curves
    above and below the measured ones, along all axes."""
    entries, changes = {}, []
    for key, entry in table.entries.items():
        repaired = (_running(entry.median_ms, np.maximum, 1) + _running(entry.median_ms, np.minimum, -1)) / 2
        changes.append(np.abs(repaired / entry.median_ms - 1).ravel())
        entries[key] = dataclasses.replace(entry, median_ms=repaired)
    change = np.concatenate(changes)
    report = {"changed_share": float((change > 1e-9).mean()), "largest_relative_change": float(change.max())}
    return dataclasses.replace(table, entries=entries, repaired=report)


def _running(values: np.ndarray, function: np.ufunc, direction: int) -> np.ndarray:
    for axis in range(values.ndim):
        values = np.flip(values, axis) if direction < 0 else values
        values = function.accumulate(values, axis)
        values = np.flip(values, axis) if direction < 0 else values
    return values


def _used(shares: Any) -> np.ndarray:
    """Positions of the units that any subnet has, of shares [..., U]; where they are traced, of all.

    A subnet of a network of many operators has few of them, and the others need not be looked up.
    """
    if isinstance(shares, jax.Array):
        return np.arange(shares.shape[-1])
    return np.flatnonzero(shares.reshape(-1, shares.shape[-1]).any(0))


def _interpolate(key: str, entry: Entry, counts: Sequence[Any], channels: Any) -> Any:
    """Multilinear in the grid's cell; `counts` [...] of each axis."""
    on_host = not isinstance(channels, jax.Array)
    find = functools.partial(_cell, key) if on_host else _traced_cell
    corners = [find(grid, n) for grid, n in zip(entry.grid, counts, strict=True)]
    values = entry.median_ms if on_host else jnp.asarray(entry.median_ms, jnp.float32)
    total = (np if on_host else jnp).zeros(channels.shape[:-1])
    for choice in itertools.product((0, 1), repeat=len(corners)):
        index = tuple(ends[side] for (ends, _), side in zip(corners, choice, strict=True))
        shares = [t if side else 1 - t for (_, t), side in zip(corners, choice, strict=True)]
        total = total + math.prod(shares) * values[index]
    return total


def _cell(key: str, grid: np.ndarray, n: np.ndarray) -> tuple[tuple[Any, Any], Any]:
    """((lower, upper) positions in the grid, share of the upper one). Raises: UserError: outside the grid."""
    if n.size and (n.min() < grid[0] or n.max() > grid[-1]):
        raise UserError(
            f"latency table: unit {key!r} was profiled for {grid[0]} to {grid[-1]} channels; "
            f"asked for {n.min()} to {n.max()}. Profile a wider range (slimjax profile --min-width)."
        )
    upper = np.clip(np.searchsorted(grid, n), 1, max(1, len(grid) - 1))
    return _ends(grid, n, upper, np.minimum)


def _traced_cell(grid: np.ndarray, n: jax.Array) -> tuple[tuple[Any, Any], Any]:
    inside = jnp.clip(n.astype(jnp.float32), float(grid[0]), float(grid[-1]))
    upper = jnp.clip(jnp.searchsorted(jnp.asarray(grid, jnp.float32), inside), 1, max(1, len(grid) - 1))
    return _ends(jnp.asarray(grid, jnp.float32), inside, upper, jnp.minimum)


def _ends(grid: Any, n: Any, upper: Any, minimum: Callable[..., Any]) -> tuple[tuple[Any, Any], Any]:
    lower, upper = upper - 1, minimum(upper, len(grid) - 1)  # one point: both are it
    width = grid[upper] - grid[lower]
    return (lower, upper), (n - grid[lower]) / (width + (width == 0))


def _missing(about: Mapping[str, Any], keys: Sequence[str]) -> str:
    listed = "".join(f"\n  {key}" for key in keys[:5]) + (
        f"\n  and {len(keys) - 5} more" if len(keys) > 5 else ""
    )
    lacks = (
        f"latency table of {about['network']['name']} on {about['target']}: "
        f"lacks {len(keys)} units of this network:{listed}\n"
    )
    if about["method"] == IMPORTED:
        return f"{lacks}It was imported for {about['network']}. Import one for this network, or profile it."
    return (
        f"{lacks}Profile them: slimjax profile --model NAME (or --config FILE) --target {about['target']} "
        f"--batch {about['batch']} --dtype {about['dtype']} --out FILE"
    )


def _to_json(table: LatencyTable) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "about": dict(table.about),
        "overhead_ms": table.overhead_ms,
        "repaired": None if table.repaired is None else dict(table.repaired),
        "staircase": None if table.staircase is None else dataclasses.asdict(table.staircase),
        "units": {
            key: {
                "grid": [axis.tolist() for axis in entry.grid],
                "median_ms": entry.median_ms.tolist(),
                "spread_ms": entry.spread_ms.tolist(),
                "outliers": [list(position) for position in entry.outliers],
            }
            for key, entry in table.entries.items()
        },
    }


def _from_json(body: dict[str, Any]) -> LatencyTable:
    """Raises: any of `files.WRONG`, with what is wrong."""
    if body.pop("checksum", None) != _checksum(body):
        raise ValueError("changed since it was written: its checksum does not fit")
    if absent := [name for name in ABOUT if name not in body["about"]]:
        raise ValueError(f"does not say its {', '.join(absent)}")
    check("overhead_ms", body["overhead_ms"], number(0))
    entries = {key: _entry(key, value) for key, value in body["units"].items()}
    return LatencyTable(
        body["about"], float(body["overhead_ms"]), entries, _staircase(body["staircase"]), body["repaired"]
    )


def _staircase(body: Mapping[str, Any] | None) -> Staircase | None:
    if body is None:
        return None
    return Staircase(body["unit"], int(body["axis"]), tuple(body["channels"]), tuple(body["median_ms"]))


def _entry(key: str, body: Mapping[str, Any]) -> Entry:
    grid = tuple(np.asarray(axis, np.int64) for axis in body["grid"])
    median, spread = (np.asarray(body[name], np.float64) for name in ("median_ms", "spread_ms"))
    shape = tuple(len(axis) for axis in grid)
    if median.shape != shape or spread.shape != shape:
        raise ValueError(
            f"unit {key!r}: expected latencies of shape {shape}, got {median.shape} and {spread.shape}"
        )
    if any(axis.size == 0 or axis[0] < 1 or (np.diff(axis) <= 0).any() for axis in grid):
        raise ValueError(f"unit {key!r}: expected ascending channel counts from 1, got {body['grid']}")
    if not (
        np.isfinite(median).all() and (median > 0).all() and np.isfinite(spread).all() and (spread >= 0).all()
    ):
        raise ValueError(f"unit {key!r}: expected finite, positive milliseconds")
    return Entry(grid, median, spread, tuple(tuple(position) for position in body["outliers"]))


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
