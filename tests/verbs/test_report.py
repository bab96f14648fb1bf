"""Several runs on one page: what the numbers mean, and what is drawn."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.paths import CONFIGS
from helpers.tables import save_table
from slimjax import supernet
from slimjax.cost import latency
from slimjax.errors import UserError
from slimjax.experiment import build, config_file
from slimjax.search.trials import Trial, TrialLog
from slimjax.verbs import cli, fronts
from slimjax.verbs.fronts import Run
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir


def row(loss, macs, top1=0.5):
    return {"name": "w", "loss": loss, "macs": macs, "top1": top1}


def test_area_and_hypervolume_over_the_common_range():
    """From 20 MACs, which both have, to 100: one run loses 2, then 1 from 60 on; the other 4 throughout."""
    better = Run("better", [row(3.0, 10), row(2.0, 20), row(1.0, 60), row(1.5, 100)], [])
    worse = Run("worse", [row(4.0, 20), row(4.0, 90)], [])
    first, second = fronts.compare([better, worse])
    assert first["area"] == pytest.approx(1.5)
    assert second["area"] == pytest.approx(4.0)
    assert second["hypervolume"] == 0
    expected = (1 * 10 + 2 * 40 + 3 * 40) / (4 * 80)
    assert first["hypervolume"] == pytest.approx(expected)


def test_a_run_that_is_better_everywhere_has_the_smaller_area():
    base = [row(1 / share, 1000 * share) for share in (0.2, 0.4, 0.6, 1.0)]
    lower = [{**r, "loss": 0.9 * r["loss"]} for r in base]
    first, second = fronts.compare([Run("a", base, []), Run("b", lower, [])])
    assert second["area"] < first["area"]
    assert second["hypervolume"] > first["hypervolume"]


@pytest.fixture
def two_runs(tmp_path):
    for name, shift in (("first", 0.0), ("second", 0.1)):
        (tmp_path / name).mkdir()
        rows = [row(1 - 0.1 * i + shift, 100 * (i + 1), 0.5 + 0.1 * i) for i in range(4)]
        (tmp_path / name / "front.json").write_text(json.dumps(rows))
    with TrialLog(tmp_path / "first" / "trials.jsonl") as log:
        log.write(*[Trial(i, "proposed", 0, {"a": 1}, cost=0.05 + 0.1 * i) for i in range(10)])
    return [str(tmp_path / name) for name in ("first", "second")]


def test_report_draws_all_runs_and_their_visits(two_runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.main(["report", "--workdir", *two_runs, "--out", str(page), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in answer["runs"]] == ["first", "second"]
    assert [run["visited"] for run in answer["runs"]] == [10, 0]
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "first" in text
    assert "second" in text


def test_runs_of_one_name_are_told_apart(two_runs, tmp_path):
    (tmp_path / "other").mkdir()
    twin = (tmp_path / "first").rename(tmp_path / "other" / "second")
    answer = fronts.write(tmp_path / "page.html", [str(twin), two_runs[1]], "")
    assert [run["run"] for run in answer] == [str(twin), two_runs[1]]


def test_directories_without_a_front_are_refused(two_runs, tmp_path):
    with pytest.raises(UserError, match=r"no front\.json"):
        fronts.load(str(tmp_path))
    broken = tmp_path / "first" / "front.json"
    broken.write_text('[{"loss": 1}]')
    with pytest.raises(UserError, match="expected rows with loss and macs"):
        fronts.load(two_runs[0])


def test_more_runs_than_colours_are_refused(two_runs, tmp_path):
    with pytest.raises(UserError, match="at most 4 runs, got 5"):
        fronts.write(tmp_path / "page.html", [two_runs[0]] * 5, "")


GROUPS = ("stage1", "stage1/block1", "stage2/block1", "stage2", "stage3/block1", "stage3")


def kept(macs, *channels, groups=GROUPS):
    return row(1.0, macs) | {"channels": dict(zip(groups, channels, strict=True))}


def write_run(folder: Path, rows) -> str:
    folder.mkdir()
    (folder / "front.json").write_text(json.dumps(rows))
    return str(folder)


def panels(*runs):
    return fronts._fronts(
        [Run(f"run{i}", rows, []) for i, rows in enumerate(runs)], "macs", "MACs", "MACs"
    ).panels


def test_channels_are_those_of_the_subnets_nearest_to_three_costs():
    """From 20 MACs, which both have, to 100: near 40, 60 and 80."""
    first = [kept(macs, *[macs] * 6) for macs in (10, 35, 62, 100)]
    second = [kept(macs, *[macs] * 6) for macs in (20, 45, 79, 90)]
    found = panels(first, second)
    assert [panel.near for panel in found] == [40, 60, 80]
    assert [[cost for cost, _ in panel.kept.values()] for panel in found] == [[35, 45], [62, 45], [62, 79]]


def test_channels_are_shares_of_the_most_that_any_run_keeps():
    [panel, *_] = panels([kept(10, 1, 2, 3, 4, 5, 6)], [kept(10, 2, 4, 6, 8, 10, 12)])
    assert panel.kept["run0"][1] == [0.5] * 6
    assert panel.kept["run1"][1] == [1.0] * 6


def test_the_page_has_a_picture_of_channels_with_every_group_and_run(tmp_path):
    runs = [write_run(tmp_path / name, [kept(10, *[4] * 6), kept(20, *[8] * 6)]) for name in ("one", "two")]
    fronts.write(tmp_path / "page.html", runs, "")
    picture = (tmp_path / "page.html").read_text().split("<figure>")[2]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert {*GROUPS, "one", "two"} <= set(texts)
    assert sum(text.startswith("near ") for text in texts) == 3


def test_a_run_of_other_groups_is_left_out_of_the_channels_and_named(tmp_path):
    others = [f"other{i}" for i in range(6)]
    runs = [
        write_run(tmp_path / "one", [kept(10, *[4] * 6)]),
        write_run(tmp_path / "two", [kept(10, *[4] * 6, groups=others)]),
    ]
    fronts.write(tmp_path / "page.html", runs, "")
    page = (tmp_path / "page.html").read_text()
    assert "two is not in the pictures of channels: its groups are not those of one." in page
    assert "other0" not in page


@pytest.fixture
def timed(tmp_path):
    """(a run of the digits, a latency table of its network)."""
    config = config_file.load(str(CONFIGS / "digits_joslim.py"), [])
    net = build.build_net(config, (8, 8, 1), 10)
    subnets = [net.space.uniform(width) for width in (0.42, 0.6, 0.8, 1.0)]
    rows = [row(1.0, int(net.macs(s))) | {"channels": net.space.to_channels(s)} for s in subnets]
    directory = write_run(tmp_path / "run", rows)
    RunDir(directory).record(config.to_json())
    table = save_table(tmp_path / "t.json", net)
    return directory, table, net.latency(latency.load(table))(np.stack(subnets))


def test_with_a_table_fronts_are_drawn_over_milliseconds_too(timed, tmp_path, capsys):
    directory, table, _ = timed
    command = [
        "report",
        "--workdir",
        directory,
        "--table",
        table,
        "--out",
        str(tmp_path / "p.html"),
        "--json",
    ]
    assert cli.main(command) == 0
    [answer] = json.loads(capsys.readouterr().out)["runs"]
    assert {"area", "latency_area", "latency_hypervolume"} <= set(answer)
    page = (tmp_path / "p.html").read_text()
    assert page.count("<svg") == 4
    assert "ms by the table of made up" in page


def test_rows_get_the_milliseconds_of_their_runs_network(timed):
    directory, table, expected = timed
    rows = fronts.load(directory, latency.load(table)).rows
    assert [r["latency_ms"] for r in rows] == pytest.approx(expected.tolist())


def test_a_table_beside_tables_to_draw_is_refused(timed, tmp_path, capsys):
    table = timed[1]
    assert cli.main(["report", "--tables", table, "--table", table, "--out", str(tmp_path / "p.html")]) == 2
    assert "--table: goes with --workdir" in capsys.readouterr().err


@pytest.fixture
def on_two(tmp_path):
    """(two tables of the digits' network, an architecture file of half its width)."""
    config = config_file.load(str(CONFIGS / "digits_joslim.py"), [])
    network = build.read_network(config)
    net = supernet.named(**network)
    half = net.space.to_channels(net.space.uniform(0.5))
    architecture.write(tmp_path / "half.json", architecture.Architecture(network, half, {}))
    tables = [save_table(tmp_path / f"{name}.json", net) for name in ("one", "other")]
    return tables, str(tmp_path / "half.json"), net


def test_architectures_are_drawn_by_their_milliseconds_on_two_tables(on_two, tmp_path, capsys):
    tables, file, net = on_two
    page = str(tmp_path / "p.html")
    assert cli.main(["report", "--tables", *tables, "--architectures", file, "--out", page]) == 0
    ms = float(net.latency(latency.load(tables[0]))(net.space.uniform(0.5)))
    text = (tmp_path / "p.html").read_text()
    assert f"half: {ms:.3g} and {ms:.3g} ms" in text
    assert "random subnets" in text
    capsys.readouterr()


@pytest.mark.parametrize(("count", "files"), [(1, 1), (2, 5)])
def test_architectures_need_two_tables_and_have_a_colour_each(count, files, on_two, tmp_path, capsys):
    tables, file, _ = on_two
    copies = [str(tmp_path / f"copy{i}.json") for i in range(files)]
    for copy in copies:
        shutil.copy(file, copy)
    given = [
        "report",
        "--tables",
        *tables[:count],
        "--architectures",
        *copies,
        "--out",
        str(tmp_path / "p.html"),
    ]
    assert cli.main(given) == 2
    assert "expected two tables and one to 4 architectures" in capsys.readouterr().err


def test_architectures_go_with_tables(timed, on_two, tmp_path, capsys):
    given = ["report", "--workdir", timed[0], "--architectures", on_two[1], "--out", str(tmp_path / "p.html")]
    assert cli.main(given) == 2
    assert "--architectures: goes with --tables" in capsys.readouterr().err
