"""The report: all rows, the same bytes each time, nothing from outside, nothing unescaped."""

import html.parser
import json
import re
import xml.etree.ElementTree

import pytest

from slimjax.report import draw
from slimjax.report.page import write_report
from slimjax.report.table import format_table, write_rows


def make_rows(widths=(0.25, 0.5, 1.0)) -> list[dict]:
    return [
        {
            "width": width,
            "channels": [int(16 * width), int(64 * width)],
            "macs": int(40812345 * width**2),
            "params": int(272474 * width**2),
            "top1": 0.9 * width**0.1,
            "top1_uncalibrated": 0.5 * width,
            "loss": 0.5 / width,
        }
        for width in widths
    ]


METRICS = [{"step": step, "time": 1.0, "train/loss": 2.0 / step, "top1": 0.5} for step in range(1, 9)]


def write(path, **changes) -> str:
    arguments = {"title": "A run", "rows": make_rows(), "command": "slimjax train", "metrics": METRICS}
    write_report(path, **{**arguments, **changes})
    return path.read_text()


def test_table_is_aligned_and_has_all_rows():
    lines = format_table(make_rows()).splitlines()
    assert len(lines) == 4
    assert "10.20 M" in lines[2]
    assert lines[0].index("channels") == lines[3].index("16 64") == lines[1].index("4 16")


def test_table_shows_missing_values_as_dashes():
    assert (
        format_table([{"width": "searched", "channels": None}]).splitlines()[1].split()
        == ["searched"] + ["-"] * 6
    )


def test_rows_are_read_back_as_they_were(tmp_path):
    write_rows(tmp_path / "front.json", make_rows())
    assert json.loads((tmp_path / "front.json").read_text()) == make_rows()


def test_rows_refuse_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_rows(tmp_path / "front.json", [{"loss": float("nan")}])
    assert not (tmp_path / "front.json").exists()


def test_report_has_every_row_the_command_and_the_versions(tmp_path):
    page = write(tmp_path / "report.html", notes=["A note."])
    for text in ("2.55 M", "10.20 M", "40.81 M", "272.47 k", "90.00%", "12.50%", "16 64"):
        assert f"<td>{text}</td>" in page
    assert "<pre>slimjax train</pre>" in page
    assert "<li>A note.</li>" in page
    assert re.search(r"jax \d+\.\d+", page)


def test_report_labels_points_by_width(tmp_path):
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", draw.front(make_rows()))
    assert {"0.25", "0.5", "1", "calibrated", "uncalibrated", "MACs"} <= set(texts)


def test_report_is_the_same_bytes_each_time(tmp_path):
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_report_without_metrics_has_one_figure_and_with_them_two(tmp_path):
    assert write(tmp_path / "a.html", metrics=None).count("<figure>") == 1
    assert write(tmp_path / "b.html").count("<figure>") == 2


EVIL = '<script>alert("x")</script>'


@pytest.mark.parametrize("place", ["title", "command", "notes", "width", "channels", "metric"])
def test_report_escapes_html(tmp_path, place):
    row, metric = {**make_rows()[0]}, EVIL + "loss"
    changes = {
        "title": {"title": EVIL},
        "command": {"command": EVIL},
        "notes": {"notes": [EVIL]},
        "width": {"rows": [{**row, "width": EVIL}]},
        "channels": {"rows": [{**row, "channels": [EVIL]}]},
        "metric": {"metrics": [{"step": 1, metric: 1.0}, {"step": 2, metric: 2.0}]},
    }[place]
    page = write(tmp_path / "report.html", **changes)
    assert "alert" in page
    assert "<script" not in page


def test_report_needs_nothing_from_outside(tmp_path):
    class Links(html.parser.HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.found += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    links = Links()
    page = write(tmp_path / "report.html")
    links.feed(page)
    assert all(link.startswith("#") for link in links.found)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_figures_have_no_colours_of_their_own():
    curves = {f"{name}/loss": ([1, 2], [3.0, float("nan")]) for name in "abcdef"}
    for svg in (draw.front(make_rows()), draw.loss(curves)):
        assert "var(--ink)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg.replace("#000000", ""))


@pytest.mark.parametrize(
    "rows", [[], make_rows((1.0,)), [make_rows()[0]] * 2, [{**make_rows()[0], "width": "$\\frac$"}]]
)
def test_figure_of_odd_rows_is_sound_xml(rows):
    xml.etree.ElementTree.fromstring(draw.front(rows))


def test_figures_on_one_page_share_no_names(tmp_path):
    names = re.findall(r'\bid="([^"]*)"', write(tmp_path / "report.html"))
    assert not [name for name in names if names.count(name) > 1]
