"""The form in which TF-NAS's authors released latency tables: tables made of it, and it of tables.

Such a table is one object: "base", the milliseconds of all that is not searched, and for each operator at each shape
the milliseconds by expanded channels:

    {"base": 9.4, "MBInvertedResBlock_112_16_0_24_k3_s2_relu": {1: 0.1, 2: 0.2, ...}, ...}

A name has the side of the input, its channels, the hidden channels of the squeeze-excite (0: none), the output's
channels, the kernel, the stride and the activation. Operators that differ in their expansion only share a name, as they
share a unit. The authors' files are pickles, which are never read here; the same object as JSON has counts as strings.

Paper: Hu, Wu and He, TF-NAS, ECCV 2020, equations 6 and 7; the form is that of the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from etils import epath

from slimjax import files
from slimjax.checks import check, number
from slimjax.cost import units
from slimjax.cost.latency import Entry, Latency, LatencyTable
from slimjax.cost.units import Unit
from slimjax.errors import UserError
from slimjax.nn.space import Space

Released = dict[str, Any]
"""Milliseconds of "base", and {channels: milliseconds} by the names of operators at shapes."""

BASE = "base"

_KERNELS = (
    ["Conv", "DepthwiseConv", "Conv"],
    ["Conv", "DepthwiseConv", "Dense", "Dense", "Conv"],  # with squeeze-excite
)
_ACTIVATIONS: Mapping[str, str] = MappingProxyType({"relu": "relu", "silu": "swish"})


def load(path: epath.PathLike) -> Released:
    """Reads a released table that is JSON.

    Raises:
      UserError: no such file, not JSON, or not of this form; the message has the path and what to do.
    """
    advice = "docs/latency.md has a command that makes JSON of the authors' pickle."
    return files.load(path, "TF-NAS latency table", None, _checked, advice, advice)


def to_table(
    released: Released, parts: Sequence[Unit], space: Space, about: Mapping[str, Any]
) -> LatencyTable:
    """A table of the units `parts` with every count that the space allows.

    What is not searched shares the base equally, and calling a program costs nothing more: only their sum is known.
    Counts below the legal ones are dropped, and with them the negative latencies that released tables have there.

    Args:
      about: see `latency.ABOUT`.

    Raises:
      UserError: naming the operators, or legal counts, that have no positive latency.
    """
    names = {part.key: name_of(part) for part in parts}
    if missing := [name for name in names.values() if name is not None and name not in released]:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UserError(f"TF-NAS latency table: lacks {listed}, which this network has.")
    for part in parts:
        if names[part.key] is None:
            _check_fixed(part)
    share = released[BASE] / max(1, sum(names[part.key] is None for part in parts))
    entries = {}
    for key, axes in units.legal_counts(parts, space).items():
        name = names[key]
        median = np.array(share) if name is None else _read(name, released[name], axes[0])
        entries[key] = Entry(tuple(axes), median, np.zeros_like(median))
    return LatencyTable(about, 0.0, entries)


def from_table(cost: Latency) -> Released:
    """The released form of a table, with every count from 1 to the largest of a unit.

    Between the profiled counts it is interpolated. Below them, where the space has no subnet, it is the latency of the
    fewest. What calling a program costs is in the base.

    Raises:
      UserError: naming a unit that this form has no name for.
    """
    overhead = cost.table.overhead_ms
    released: Released = {BASE: overhead}
    for part, _ in cost.units:
        entry, name = cost.table.entries[part.key], name_of(part)
        alone = entry.median_ms - overhead
        if name is None:
            _check_fixed(part)
            released[BASE] += float(alone)
        else:
            known = released.get(name, {})
            counts = range(1, max(len(known), part.axes[0].channels) + 1)
            released[name] = dict(zip(counts, np.interp(counts, entry.grid[0], alone).tolist(), strict=True))
    return released


def name_of(part: Unit) -> str | None:
    """A unit's name in the released form; None: it is no inverted residual of which only the expanded width is free."""
    layers = [layer for layer in part.layers if layer.has_kernel]
    functions = [op.name for op in part.ops.values() if op.layer is None]
    if [layer.kind for layer in layers] not in _KERNELS or len(part.axes) != 1 or part.options:
        return None
    expand, depthwise, *squeeze, project = layers
    inner, outer, size = expand.in_group, project.out_group, depthwise.in_size
    activation = _ACTIVATIONS.get(functions[0])
    if not (inner.fixed and outer.fixed and size[0] == size[1] and activation):
        return None
    hidden = squeeze[0].out_group.channels if squeeze else 0
    shape = f"{size[0]}_{inner.channels}_{hidden}_{outer.channels}"
    return f"MBInvertedResBlock_{shape}_k{depthwise.kernel_size}_s{depthwise.stride}_{activation}"


def _check_fixed(part: Unit) -> None:
    """Raises: UserError: a unit without a name is not in every subnet, or its cost is not the same in all."""
    if part.axes or part.under:
        raise UserError(
            f"TF-NAS latency table: it has no name for the unit {part.key!r}. It holds networks whose free widths and "
            "choices are those of inverted residuals, such as tfnas."
        )


def _read(name: str, latencies: Mapping[int, float], counts: np.ndarray) -> np.ndarray:
    """Milliseconds at legal counts. Raises: UserError: naming those that are absent or not positive."""
    if bad := [n for n in counts.tolist() if not latencies.get(n, 0.0) > 0]:
        raise UserError(
            f"TF-NAS latency table: {name}: expected a positive latency for {counts[0]} to {counts[-1]} channels, got "
            f"{latencies.get(bad[0])} for {bad[0]} ({len(bad)} such counts)."
        )
    return np.array([latencies[n] for n in counts.tolist()])


def _checked(body: dict[str, Any]) -> Released:
    """Raises: any of `files.WRONG`, with what is wrong."""
    check(BASE, body[BASE], number(0, above=True))
    released: Released = {BASE: float(body[BASE])}
    for name, latencies in body.items():
        if name != BASE:
            for n, value in latencies.items():
                check(f"{name} at {n} channels", value, number())
            released[name] = {int(n): float(value) for n, value in latencies.items()}
    return released
