"""What a call takes from an earlier one: nothing silently, and of measurements only what was interrupted."""

import functools
import json
import os

import pytest

from helpers.paths import REPOSITORY, TESTS
from slimjax.profiling import sweep
from slimjax.profiling.readings import Readings
from slimjax.verbs import cli

TASKS = [("unit", (n,)) for n in (8, 16, 24)]
GOOD = {"median_ms": 1.0, "spread_ms": 0.0, "outlier": False}
NETWORK = ["--model", "resnet8", "--image-size", "8"]
DAY = 86400.0


def fill(path, tasks, now=0.0, call="a", **options):
    """Reads tasks at a time, as a call would; returns its readings, of which no end is marked."""
    readings = Readings(path, call, clock=lambda: now, **options)
    for task in readings.want(tasks):
        readings.keep(task, GOOD)
    return readings


def test_a_call_that_ended_is_not_reused(tmp_path):
    fill(tmp_path / "r.jsonl", TASKS).end()
    assert fill(tmp_path / "r.jsonl", TASKS).fresh == 3
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3 + 1 + 3


def test_an_interrupted_call_goes_on_and_says_so(tmp_path):
    """Two entries read three days and one day before the third; one day is still told in hours."""
    fill(tmp_path / "r.jsonl", TASKS[:1], now=0.0)
    fill(tmp_path / "r.jsonl", TASKS[:2], now=2 * DAY)
    again = fill(tmp_path / "r.jsonl", TASKS, now=3 * DAY)
    assert again.origin() == {
        "fresh": 1,
        "reused": 2,
        "reused_newest_seconds": DAY,
        "reused_oldest_seconds": 3 * DAY,
        "reused_of_unknown_age": 0,
    }
    assert again.explain(TASKS) == (
        "2 of 3 readings are from an earlier call that did not finish: read 24 hours to 3 days ago "
        "(--no-reuse reads them again)"
    )
    again.end()
    assert fill(tmp_path / "r.jsonl", TASKS).fresh == 3


def test_an_interrupted_call_is_not_anothers(tmp_path):
    fill(tmp_path / "r.jsonl", TASKS[:2], call="a")
    fill(tmp_path / "r.jsonl", TASKS, call="b").end()
    assert fill(tmp_path / "r.jsonl", TASKS, call="a").fresh == 1, "the end of b does not end a"


def test_everything_is_reused_if_that_is_wanted(tmp_path):
    fill(tmp_path / "r.jsonl", TASKS[:2], now=0.0, call="b").end()
    again = fill(tmp_path / "r.jsonl", TASKS, now=90.0, reuse=True)
    assert (again.fresh, len(again.reused)) == (1, 2)
    assert again.explain(TASKS).startswith("2 of 3 readings are from the cache: read 90 seconds ago (")
    assert again.oldest() == 0.0


@pytest.mark.parametrize(
    ("moments", "words"),
    [
        ((0.0, 9.0), "5 to 14 seconds"),
        ((0.0, 13.0), "1 second to 14 seconds"),
        ((14.0, 14.0), "0 seconds"),
        ((14.0 - DAY, 14.0 - 1.5 * DAY), "24 to 36 hours"),
        ((-120.0, 14.0 - 7200.0), "2 minutes to 2 hours"),
    ],
)
def test_ages_are_told_in_the_largest_unit_of_which_there_are_two(tmp_path, moments, words):
    for task, moment in zip(TASKS[:2], moments, strict=True):
        fill(tmp_path / "r.jsonl", [task], now=moment)
    again = Readings(tmp_path / "r.jsonl", "a", clock=lambda: 14.0)
    assert f"read {words} ago" in again.explain(TASKS)


def test_nothing_is_reused_if_that_is_wanted_nor_later(tmp_path):
    """The first call's readings are not what the second one left, although neither ended."""
    fill(tmp_path / "r.jsonl", TASKS[:2])
    second = fill(tmp_path / "r.jsonl", TASKS[:1], reuse=False)
    assert (second.fresh, second.explain(TASKS)) == (1, None)
    assert fill(tmp_path / "r.jsonl", TASKS).fresh == 2


def test_readings_that_do_not_say_when_they_were_read_are_of_unknown_age(tmp_path):
    """As version 0.1.0 wrote them: neither a time nor a call."""
    path = tmp_path / "r.jsonl"
    old = [{"unit": task[0], "sizes": task[1], "reading": GOOD} for task in TASKS[:2]]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert fill(path, TASKS[:1], now=60.0, call="").fresh == 1, "nobody knows which call it was"
    again = fill(path, TASKS, now=100.0, reuse=True)
    assert "read 40 seconds ago, 1 of unknown age (" in again.explain(TASKS)
    assert again.origin()["reused_of_unknown_age"] == 1
    unknown = fill(path, TASKS[1:2], reuse=True).explain(TASKS[1:2])
    assert unknown == "1 of 1 readings are from the cache: 1 of unknown age (--no-reuse reads them again)"


def test_only_what_was_asked_for_counts_as_reused(tmp_path):
    fill(tmp_path / "r.jsonl", TASKS)
    again = fill(tmp_path / "r.jsonl", TASKS[:1])
    assert (again.fresh, len(again.reused)) == (0, 1)


# Through the command line, with a child that answers at once


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Returns a function: a command and its options -> (its answer, its lines on stderr); the CPU's child is a fake."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{REPOSITORY}")
    monkeypatch.setattr(sweep, "workers", functools.partial(sweep.workers, module="helpers.fake_child"))
    cache, table = ["--cache", str(tmp_path / "cache")], str(tmp_path / "t.json")
    commands = {
        "profile": ["profile", *NETWORK, "--target", "cpu", "--points", "3", "--out", table],
        "table": ["bench", "table", "--table", table, "--subnets", "4"],
    }

    def run(command, *options, code=0):
        assert cli.main([*commands[command], *cache, *options, "--json"]) == code
        found = capsys.readouterr()
        return json.loads(found.out) if code == 0 else None, found.err

    return run


def kept(tmp_path):
    """How many readings lie in the cache."""
    files = (tmp_path / "cache").iterdir()
    return sum('"unit"' in line for path in files for line in path.read_text().splitlines())


@pytest.mark.parametrize("command", ["profile", "table"])
def test_a_second_measurement_measures_all_again(call, tmp_path, command):
    call("profile")
    first, _ = call(command)
    before = kept(tmp_path)
    second, lines = call(command)
    assert second["fresh"] == first["fresh"] == kept(tmp_path) - before > 3
    assert second["reused"] == 0
    assert "readings are from" not in lines


@pytest.mark.parametrize(("command", "label"), [("profile", "profile"), ("table", "compare")])
def test_measurements_are_reused_on_request_and_counted(call, tmp_path, command, label):
    call("profile")
    first, _ = call(command)
    before = kept(tmp_path)
    again, lines = call(command, "--reuse")
    assert (again["fresh"], again["reused"]) == (0, first["fresh"])
    assert kept(tmp_path) == before
    assert 0 <= again["reused_newest_seconds"] <= again["reused_oldest_seconds"] < 600
    assert again["reused_of_unknown_age"] == 0
    assert f"{label}: " in lines
    assert "readings are from the cache: read " in lines


@pytest.mark.parametrize(("command", "fails_at"), [("profile", 10), ("table", 2)])
def test_an_interrupted_measurement_goes_on(call, tmp_path, monkeypatch, command, fails_at):
    call("profile")
    count, attempt = 0, sweep._attempt

    def interrupted(*arguments):
        nonlocal count
        count += 1
        return (None, "broken") if count > fails_at else attempt(*arguments)

    monkeypatch.setattr(sweep, "_attempt", interrupted)
    call(command, code=1)
    monkeypatch.setattr(sweep, "_attempt", attempt)
    resumed, lines = call(command)
    assert resumed["reused"] == fails_at
    assert "readings are from an earlier call that did not finish: read " in lines
    third, _ = call(command)
    assert third["reused"] == 0
    assert third["fresh"] == resumed["fresh"] + resumed["reused"]


def test_a_table_has_the_date_of_its_oldest_reading(call, tmp_path):
    call("profile")
    (path,) = (tmp_path / "cache").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["time"] = 10 * DAY + 5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("profile", "--reuse")[0]["date"] == "1970-01-11"


def test_no_readings_are_taken_if_none_are_wanted(call):
    first, _ = call("profile")
    again, _ = call("profile", "--no-reuse")
    assert (again["fresh"], again["reused"]) == (first["fresh"], 0)
