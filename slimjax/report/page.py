"""Self-contained HTML pages for people: of a run, of several runs, of latency tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from slimjax.files import write_atomic
from slimjax.report import draw
from slimjax.report.draw import Curve, Fronts, Scatter
from slimjax.report.table import COLUMNS, SubnetRow, cells
from slimjax.workdir.versions import versions

Row = Mapping[str, str]
"""One line of a table: text by column."""


def write_report(
    path: epath.PathLike,
    *,
    title: str,
    rows: Sequence[SubnetRow],
    command: str,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes one HTML page that needs no other file; the same arguments give the same bytes.

    Args:
      path: the file to write.
      title: heading.
      rows: one for each subnet.
      command: what to type to get them again.
      metrics: lines as `metrics.read` returns them; every key that ends in "loss" becomes a curve.
      notes: sentences to print under the table; all text is escaped.
    """
    figures = [Markup(draw.front(rows))]  # matplotlib escapes the text it draws
    if metrics and (curves := _loss_curves(metrics)):
        figures.append(Markup(draw.loss(curves)))
    lines = [cells(row) for row in rows]
    write_page(path, title, figures, "Subnets", COLUMNS, lines, command, notes)


def write_latencies(
    path: epath.PathLike,
    *,
    title: str,
    curves: Sequence[Curve],
    summaries: Sequence[Row],
    command: str,
    scatter: Scatter | None = None,
) -> None:
    """Writes one HTML page about latency tables: a picture per curve, and a row per table.

    Args:
      scatter: subnets by their milliseconds on two of them, drawn first.
      summaries: text by column; all have the same columns, the last of which may be long.
    """
    pictures = [draw.latency(curve) for curve in curves]
    if scatter is not None:
        pictures.insert(0, draw.two_devices(scatter))
    figures = list(map(Markup, pictures))
    rows = [tuple(row.values()) for row in summaries]
    write_page(path, title, figures, "Tables", tuple(summaries[0]), rows, command)


def write_fronts(
    path: epath.PathLike,
    *,
    fronts: Sequence[Fronts],
    visited: Mapping[str, Sequence[float]],
    summaries: Sequence[Mapping[str, Any]],
    command: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes one HTML page about several runs.

    Args:
      fronts: the runs by one cost, by another.
      visited: costs from 0 to 1 of what their searches tried.
      summaries: numbers by column, one row for each run.
    """
    pictures = [draw.fronts(one) for one in fronts]
    if visited:
        pictures.append(draw.visited(visited))
    pictures += [draw.channels(one) for one in fronts if one.panels]
    rows = [tuple(_short(value) for value in row.values()) for row in summaries]
    write_page(path, "Fronts", list(map(Markup, pictures)), "Runs", tuple(summaries[0]), rows, command, notes)


def write_page(
    path: epath.PathLike,
    title: str,
    figures: Sequence[Markup],
    heading: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    command: str,
    notes: Sequence[str] = (),
) -> None:
    """Pictures, a table under a heading, the command, and the versions; all text is escaped."""
    template = resources.files("slimjax.report").joinpath("page.html.jinja").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(template).render(
        title=title,
        figures=figures,
        heading=heading,
        columns=columns,
        rows=rows,
        command=command,
        notes=notes,
        versions=versions(),
    )
    write_atomic(path, page)


def _loss_curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    names = dict.fromkeys(name for line in metrics for name in line if name.endswith("loss"))
    lines = {name: [line for line in metrics if name in line] for name in names}
    return {
        name: ([line["step"] for line in with_name], [line[name] for line in with_name])
        for name, with_name in lines.items()
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
