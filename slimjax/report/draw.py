"""Pictures as SVG elements: text stays text, colours come from the page, the same numbers give the same bytes."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from slimjax.report.table import SubnetRow, cells, count

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
class Scatter:
    """Subnets by their milliseconds on two devices.

    Args:
      labels: of the two axes.
      cloud: of random subnets; `marked`: (x, y) of others, by name, at most as many as `SERIES`.
    """

    labels: tuple[str, str]
    cloud: Points
    marked: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Fronts:
    """The subnets of several runs, by one cost.

    Args:
      cost: what the cost axis is called; `suffix`: what follows a number.
      points: (cost, top-1 from 0 to 1) of each run's subnets, by name; at most as many runs as `SERIES`.
      groups: names of channel groups, in network order; `panels`: what is kept of them at a few costs.
    """

    cost: str
    suffix: str
    points: Mapping[str, Sequence[tuple[float, float]]]
    groups: Sequence[str]
    panels: Sequence[Panel]


@dataclasses.dataclass(frozen=True)
class Panel:
    """For each run, the subnet nearest to a cost: its own cost, and what share of each group's channels it keeps."""

    near: float
    kept: Mapping[str, tuple[float, Sequence[float]]]


BINS = 20
"""Of a histogram of costs from 0 to 1."""

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


def front(rows: Sequence[SubnetRow]) -> str:
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


def fronts(compared: Fronts) -> str:
    """Returns an SVG of top-1 over a cost, a line for each run."""
    figure, axes = _new_figure(compared.cost, "top-1 (%)")
    if compared.suffix == "MACs":
        _scale_macs(axes)
    for (name, points), colour in zip(compared.points.items(), SERIES, strict=False):
        cost, top1 = zip(*sorted(points), strict=True)
        percent = [100 * value for value in top1]
        axes.plot(cost, percent, "o-", color=colour, label=name, markersize=4, linewidth=1.2)
    _finish(axes)
    return _to_svg(figure, f"Fronts of several runs over {compared.cost}")


def channels(compared: Fronts) -> str:
    """Returns an SVG of the share of its channels that each group keeps: a panel for each cost, a line for each run."""
    height, places = 1.1 + 1.55 * len(compared.panels), range(len(compared.groups))
    figure = Figure(figsize=(7, height), layout="constrained", facecolor="none")
    rows = figure.subplots(len(compared.panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    colours = dict(zip(compared.points, zip(SERIES, MARKERS, strict=True), strict=False))
    for axes, panel in zip(rows, compared.panels, strict=True):
        _clear(axes)
        costs = ", ".join(count(cost) for cost, _ in panel.kept.values())
        title = f"near {count(panel.near)} {compared.suffix}: {costs}"
        axes.set_title(title, color=INK, fontsize=9, loc="left")
        for i, (name, (_, shares)) in enumerate(panel.kept.items()):
            colour, marker = colours[name]
            beside = [
                place + 0.12 * (i - (len(panel.kept) - 1) / 2) for place in places
            ]  # equal ones do not hide
            axes.plot(beside, shares, marker + "-", color=colour, label=name, markersize=5, linewidth=0.8)
        axes.set_ylim(0, 1.08)
    rows[-1].set_xticks(places, compared.groups, rotation=30, ha="right", fontsize=8, parse_math=False)
    figure.supylabel("share of its most channels", color=INK, fontsize=10)
    _legend(figure, *rows[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return _to_svg(figure, f"Channels by group near a few costs, {compared.cost}")


def visited(costs_of: Mapping[str, Sequence[float]]) -> str:
    """Returns an SVG of histograms of visited costs, a line of steps for each run."""
    figure, axes = _new_figure("cost, a fraction of the largest network's", "subnets visited")
    for (name, costs), colour in zip(costs_of.items(), SERIES, strict=False):
        counts = [0] * BINS
        for cost in costs:
            counts[min(BINS - 1, int(cost * BINS))] += 1
        edges = [i / BINS for i in range(BINS + 1)]
        axes.stairs(counts, edges, color=colour, linewidth=1.5)
        axes.plot([], [], color=colour, label=name)
    _finish(axes)
    return _to_svg(figure, "Visited costs")


def loss(curves: Mapping[str, tuple[list[int], list[float]]]) -> str:
    """Returns an SVG of losses, {name: (steps, values)}, over steps; at most four of them."""
    figure, axes = _new_figure("step", "loss")
    for (name, (steps, values)), colour in zip(curves.items(), SERIES, strict=False):
        axes.plot(steps, values, color=colour, label=name, linewidth=1.2)
    _finish(axes)
    return _to_svg(figure, "Loss over steps")


def latency(curve: Curve) -> str:
    """Returns an SVG of milliseconds over channels, with what a table would answer between profiled counts."""
    figure, axes = _new_figure(curve.xlabel, "ms")
    axes.set_title(curve.title, color=INK, fontsize=9, parse_math=False, wrap=True)
    axes.plot(*curve.profiled, "o-", color=UNCALIBRATED, label="table", markersize=4, linewidth=1.0)
    axes.step(*curve.every, where="post", color=CALIBRATED, label=curve.label, linewidth=1.5)
    axes.set_ylim(bottom=0)
    _finish(axes)
    return _to_svg(figure, f"Latency over channels, {curve.label}")


def two_devices(found: Scatter) -> str:
    """Returns an SVG of the subnets' milliseconds on one device over those on another."""
    figure, axes = _new_figure(*found.labels)
    axes.plot(*found.cloud, ".", color=INK, alpha=0.25, markersize=3, label="random subnets")
    for (name, (x, y)), colour, marker in zip(found.marked.items(), SERIES, MARKERS, strict=False):
        axes.plot([x], [y], marker, color=colour, label=f"{name}: {x:.3g} and {y:.3g} ms", markersize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _finish(axes)
    return _to_svg(figure, "Subnets on two devices")


def _has(row: SubnetRow, *keys: str) -> bool:
    return all(row.get(key) is not None for key in keys)


def _new_figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained", facecolor="none")
    axes = figure.subplots()
    _clear(axes)
    axes.set_xlabel(xlabel, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, color=INK, parse_math=False)
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


def _label_points(axes: Axes, rows: Sequence[SubnetRow]) -> None:
    for row in rows:
        if _has(row, "macs", "top1", "width"):
            text = cells(row)[0]
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
