"""Several runs on one page: what the numbers mean, and what is drawn."""

import json

import pytest

from slimjax import cli, fronts
from slimjax.errors import UserError
from slimjax.fronts import Run
from slimjax.search.trials import Trial, TrialLog


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
    with TrialLog(tmp_path / "first") as log:
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
