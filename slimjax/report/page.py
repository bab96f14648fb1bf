"""The front of a run: a table for the terminal, JSON for programs, a self-contained HTML page for people."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import matplotlib as mpl
from etils import epath
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from slimjax.files import write_atomic
from slimjax.workdir.rundir import versions

FrontRow = dict[str, Any]
"""One subnet: width (a fraction or a name), channels (integers), macs and params (counts), top1 and
top1_uncalibrated (fractions), loss (nats). A value that is missing or None is shown as a dash."""

Row = Mapping[str, str]
"""One line of a table: text by column."""

Points = tuple[Sequence[float], Sequence[float]]
"""x and y."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Latency over the channels of one axis: at `every` step, and at those that a table has."""

    title: str
    label: str
    xlabel: str
    every: Points
    profiled: Points


@dataclasses.dataclass(frozen=True)
class Fronts:
    """The subnets of several runs, by one cost.

    Args:
      cost: what the cost axis is called; `unit`: what follows a number.
      points: (cost, top-1 from 0 to 1) of each run's subnets, by name; at most as many runs as `SERIES`.
      groups: names of channel groups, in network order; `panels`: what is kept of them at a few costs.
    """

    cost: str
    unit: str
    points: Mapping[str, Sequence[tuple[float, float]]]
    groups: Sequence[str]
    panels: Sequence[Panel]


@dataclasses.dataclass(frozen=True)
class Panel:
    """For each run, the subnet nearest to a cost: its own cost, and what share of each group's channels it keeps."""

    near: float
    kept: Mapping[str, tuple[float, Sequence[float]]]


DASH = "-"
BINS = 20
"""Of a histogram of costs from 0 to 1."""
COLUMNS = ("width", "MACs", "params", "top-1", "uncalibrated", "loss", "channels")

# Stand-ins in the drawing for what the page's style sheet decides: dark or light.
INK, CALIBRATED, UNCALIBRATED = "#010203", "#010204", "#010205"
SERIES = (CALIBRATED, UNCALIBRATED, "#010206", "#010207")
MARKERS = "osD^"
STYLE = {
    INK: "var(--ink)",
    CALIBRATED: "var(--series-1)",
    UNCALIBRATED: "var(--series-2)",
    SERIES[2]: "var(--series-3)",
    SERIES[3]: "var(--series-4)",
}


def format_table(rows: Sequence[FrontRow]) -> str:
    """Returns the front as lines of aligned columns, numbers to the right, channels last."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]])
        for line in cells
    )


def write_front(path: epath.PathLike, rows: Sequence[FrontRow]) -> None:
    """Writes the rows as a JSON list, wholly or not at all. Raises: ValueError for a NaN or an infinity."""
    write_atomic(path, json.dumps([dict(row) for row in rows], indent=1, allow_nan=False) + "\n")


def write_report(
    path: epath.PathLike,
    *,
    title: str,
    rows: Sequence[FrontRow],
    command: str,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes one HTML page that needs no other file; the same arguments give the same bytes.

    Args:
      path: the file to write.
      title: heading.
      rows: the front, one subnet each.
      command: what to type to get this front again.
      metrics: lines as `metrics.read` returns them; every key that ends in "loss" becomes a curve.
      notes: sentences to print under the table; all text is escaped.
    """
    figures = [Markup(draw_front(rows))]  # matplotlib escapes the text it draws
    if metrics and (curves := _loss_curves(metrics)):
        figures.append(Markup(draw_loss(curves)))
    cells = [_cells(row) for row in rows]
    write_page(path, title, figures, "Subnets", COLUMNS, cells, command, notes)


def write_latencies(
    path: epath.PathLike, *, title: str, curves: Sequence[Curve], summaries: Sequence[Row], command: str
) -> None:
    """Writes one HTML page about latency tables: a picture per curve, and a row per table.

    Args:
      summaries: text by column; all have the same columns, the last of which may be long.
    """
    figures = [Markup(draw_latency(curve)) for curve in curves]
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
    pictures = [draw_fronts(one) for one in fronts]
    if visited:
        pictures.append(draw_visited(visited))
    pictures += [draw_channels(one) for one in fronts if one.panels]
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


def draw_front(rows: Sequence[FrontRow]) -> str:
    """Returns an SVG of top-1 over MACs, calibrated and not, each calibrated point labelled by its width."""
    figure, axes = _new_figure("MACs", "top-1 (%)")
    _scale_macs(axes)
    for key, label, colour, marker in (
        ("top1_uncalibrated", "uncalibrated", UNCALIBRATED, "s--"),
        ("top1", "calibrated", CALIBRATED, "o-"),
    ):
        points = sorted((row["macs"], 100 * row[key]) for row in rows if _has(row, "macs", key))
        if points:
            macs, top1 = zip(*points, strict=True)
            axes.plot(macs, top1, marker, color=colour, label=label, markersize=5, linewidth=1.5)
    _label_points(axes, rows)
    _finish(axes)
    return _to_svg(figure, "Top-1 accuracy over MACs")


def draw_fronts(fronts: Fronts) -> str:
    """Returns an SVG of top-1 over a cost, a line for each run."""
    figure, axes = _new_figure(fronts.cost, "top-1 (%)")
    if fronts.unit == "MACs":
        _scale_macs(axes)
    for (name, points), colour in zip(fronts.points.items(), SERIES, strict=False):
        cost, top1 = zip(*sorted(points), strict=True)
        percent = [100 * value for value in top1]
        axes.plot(cost, percent, "o-", color=colour, label=name, markersize=4, linewidth=1.2)
    _finish(axes)
    return _to_svg(figure, f"Fronts of several runs over {fronts.cost}")


def draw_channels(fronts: Fronts) -> str:
    """Returns an SVG of the share of its channels that each group keeps: a panel for each cost, a line for each run."""
    height, places = 1.1 + 1.55 * len(fronts.panels), range(len(fronts.groups))
    figure = Figure(figsize=(7, height), layout="constrained", facecolor="none")
    rows = figure.subplots(len(fronts.panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    colours = dict(zip(fronts.points, zip(SERIES, MARKERS, strict=True), strict=False))
    for axes, panel in zip(rows, fronts.panels, strict=True):
        _clear(axes)
        costs = ", ".join(_count(cost) for cost, _ in panel.kept.values())
        title = f"near {_count(panel.near)} {fronts.unit}: {costs}"
        axes.set_title(title, color=INK, fontsize=9, loc="left")
        for i, (name, (_, shares)) in enumerate(panel.kept.items()):
            colour, marker = colours[name]
            beside = [
                place + 0.12 * (i - (len(panel.kept) - 1) / 2) for place in places
            ]  # equal ones do not hide
            axes.plot(beside, shares, marker + "-", color=colour, label=name, markersize=5, linewidth=0.8)
        axes.set_ylim(0, 1.08)
    rows[-1].set_xticks(places, fronts.groups, rotation=30, ha="right", fontsize=8, parse_math=False)
    figure.supylabel("share of its most channels", color=INK, fontsize=10)
    _legend(figure, *rows[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return _to_svg(figure, f"Channels by group near a few costs, {fronts.cost}")


def draw_visited(visited: Mapping[str, Sequence[float]]) -> str:
    """Returns an SVG of histograms of visited costs, a line of steps for each run."""
    figure, axes = _new_figure("cost, a fraction of the largest network's", "subnets visited")
    for (name, costs), colour in zip(visited.items(), SERIES, strict=False):
        counts = [0] * BINS
        for cost in costs:
            counts[min(BINS - 1, int(cost * BINS))] += 1
        edges = [i / BINS for i in range(BINS + 1)]
        axes.stairs(counts, edges, color=colour, linewidth=1.5)
        axes.plot([], [], color=colour, label=name)
    _finish(axes)
    return _to_svg(figure, "Visited costs")


def draw_loss(curves: Mapping[str, tuple[list[int], list[float]]]) -> str:
    """Returns an SVG of losses, {name: (steps, values)}, over steps; at most four of them."""
    figure, axes = _new_figure("step", "loss")
    for (name, (steps, values)), colour in zip(curves.items(), SERIES, strict=False):
        axes.plot(steps, values, color=colour, label=name, linewidth=1.2)
    _finish(axes)
    return _to_svg(figure, "Loss over steps")


def draw_latency(curve: Curve) -> str:
    """Returns an SVG of milliseconds over channels, with what a table would answer between profiled counts."""
    figure, axes = _new_figure(curve.xlabel, "ms")
    axes.set_title(curve.title, color=INK, fontsize=9, parse_math=False, wrap=True)
    axes.plot(*curve.profiled, "o-", color=UNCALIBRATED, label="table", markersize=4, linewidth=1.0)
    axes.step(*curve.every, where="post", color=CALIBRATED, label=curve.label, linewidth=1.5)
    axes.set_ylim(bottom=0)
    _finish(axes)
    return _to_svg(figure, f"Latency over channels, {curve.label}")


def _cells(row: FrontRow) -> tuple[str, ...]:
    width, channels = row.get("width"), row.get("channels")
    counts = channels.values() if isinstance(channels, Mapping) else channels or ()
    return (
        f"{width:.4g}" if isinstance(width, float) else DASH if width is None else str(width),
        _count(row.get("macs")),
        _count(row.get("params")),
        _percent(row.get("top1")),
        _percent(row.get("top1_uncalibrated")),
        DASH if row.get("loss") is None else f"{row['loss']:.4f}",
        " ".join(map(str, counts)) or DASH,
    )


def _count(value: float | None) -> str:
    """Returns 40.81 M for 40812345."""
    if value is None:
        return DASH
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:.4g}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.2f}%"


def _has(row: FrontRow, *keys: str) -> bool:
    return all(row.get(key) is not None for key in keys)


def _loss_curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    names = dict.fromkeys(name for line in metrics for name in line if name.endswith("loss"))
    lines = {name: [line for line in metrics if name in line] for name in names}
    return {
        name: ([line["step"] for line in with_name], [line[name] for line in with_name])
        for name, with_name in lines.items()
    }


def _new_figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained", facecolor="none")
    axes = figure.subplots()
    _clear(axes)
    axes.set_xlabel(xlabel, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, color=INK)
    axes.margins(x=0.08, y=0.12)
    return figure, axes


def _clear(axes: Axes) -> None:
    """Nothing but a faint grid, in the page's ink."""
    axes.set_facecolor("none")
    axes.tick_params(which="both", colors=INK, length=0)
    axes.spines[:].set_visible(False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)


def _scale_macs(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())


def _label_points(axes: Axes, rows: Sequence[FrontRow]) -> None:
    for row in rows:
        if _has(row, "macs", "top1", "width"):
            text = _cells(row)[0]
            at = (row["macs"], 100 * row["top1"])
            axes.annotate(
                text,
                at,
                (0, 7),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=9,
                parse_math=False,
            )


def _finish(axes: Axes) -> None:
    if axes.lines:
        _legend(axes, *axes.get_legend_handles_labels(), loc="best")


def _legend(place: Axes | Figure, handles: Sequence[Any], labels: Sequence[str], **options: Any) -> None:
    legend = place.legend(handles, labels, frameon=False, labelcolor=INK, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _to_svg(figure: Figure, title: str) -> str:
    """Returns the figure as an <svg> element: same figure same bytes, text as text, colours from the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<g) id="[\w.]+_\d+"', r"\1", svg)  # two figures on one page must not share names
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    for stand_in, colour in STYLE.items():
        svg = svg.replace(stand_in, colour)
    return svg
