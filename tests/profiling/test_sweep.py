"""Sweeps: failed and hanging measurements, what is kept, what is asked again."""

import itertools
import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from helpers.paths import REPOSITORY, TESTS
from slimjax.errors import RunError
from slimjax.profiling import meters, sweep
from slimjax.profiling.readings import Readings

TASKS = [("unit", (a, b)) for a in (8, 16) for b in (4, 8, 12)]


def good(task):
    return {"median_ms": float(sum(task[1]) or 1), "spread_ms": 0.1, "outlier": False}


def counting(answer=good):
    asked = []

    def ask(task):
        asked.append(task)
        return answer(task)

    return ask, asked


def test_a_sweep_asks_every_task_once_and_keeps_the_answers(tmp_path):
    ask, asked = counting()
    sweep.sweep([*TASKS, *TASKS], [ask], Readings(tmp_path / "r.jsonl"))
    assert sorted(asked) == sorted(TASKS)
    assert Readings(tmp_path / "r.jsonl").found == {task: good(task) for task in TASKS}


def test_several_askers_share_the_work(tmp_path):
    import threading

    barrier = threading.Barrier(2, timeout=30)

    def ask(task):
        barrier.wait()  # passes only while two are at it
        return good(task)

    sweep.sweep(TASKS, [ask, lambda task: ask(task)], Readings(tmp_path / "r.jsonl"))
    assert len(Readings(tmp_path / "r.jsonl").found) == len(TASKS)


@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.inf, -math.inf, math.nan, None, "1", True])
def test_a_reading_that_is_no_latency_fails_and_names_its_task(tmp_path, value):
    bad = lambda task: {**good(task), "median_ms": value} if task == TASKS[1] else good(task)  # noqa: E731
    ask, asked = counting(bad)
    with pytest.raises(
        RunError,
        match=r"(?s)1 of 6 entries failed.*unit at 8x8: median_ms: expected a number .*run the same",
    ):
        sweep.sweep(TASKS, [ask], Readings(tmp_path / "r.jsonl"), retries=2)
    assert asked.count(TASKS[1]) == 3
    assert set(Readings(tmp_path / "r.jsonl").found) == set(TASKS) - {TASKS[1]}


def test_an_empty_program_may_cost_nothing_but_a_unit_may_not():
    nothing = {"median_ms": 0.0, "spread_ms": 0.0}
    assert meters.problem(nothing, overhead=True) is None
    assert meters.problem(nothing) == "median_ms: expected a number above 0, got 0.0"


@pytest.mark.parametrize("error", [RunError("died"), TimeoutError("no answer within 1 s")])
def test_a_measurement_that_fails_once_is_tried_again(tmp_path, error):
    failures = iter([error])

    def ask(task):
        for failure in failures:
            raise failure
        return good(task)

    sweep.sweep(TASKS, [ask], Readings(tmp_path / "r.jsonl"))
    assert len(Readings(tmp_path / "r.jsonl").found) == len(TASKS)


def test_a_second_sweep_asks_for_what_the_first_one_did_not_get(tmp_path):
    def fails(task):
        raise RunError("no such device")

    with pytest.raises(RunError, match="6 of 6 entries failed"):
        sweep.sweep(TASKS, [fails], Readings(tmp_path / "r.jsonl"), retries=0)
    sweep.sweep(TASKS[:4], [good], Readings(tmp_path / "r.jsonl"))
    ask, asked = counting()
    sweep.sweep(TASKS, [ask], Readings(tmp_path / "r.jsonl"))
    assert asked == TASKS[4:]


@pytest.mark.parametrize("cut", [2, 20, 60])
def test_a_line_that_was_cut_off_is_dropped_and_the_file_goes_on(tmp_path, cut):
    path = tmp_path / "r.jsonl"
    sweep.sweep(TASKS, [good], Readings(path))
    path.write_text(path.read_text()[:-cut])
    assert len(Readings(path).found) == len(TASKS) - 1
    sweep.sweep(TASKS, [good], Readings(path))
    assert len(Readings(path).found) == len(TASKS)


def test_a_killed_sweep_loses_nothing_that_was_read(tmp_path):
    """kill -9 in the middle of the fourth entry; the first three are in the file."""
    code = f"""
        import os, signal
        from slimjax.profiling import readings, sweep
        tasks = {TASKS}
        def ask(task):
            if task == tasks[3]:
                os.kill(os.getpid(), signal.SIGKILL)
            return {{"median_ms": 1.0, "spread_ms": 0.0, "outlier": False}}
        sweep.sweep(tasks, [ask], readings.Readings({str(tmp_path / "r.jsonl")!r}))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert list(Readings(tmp_path / "r.jsonl").found) == TASKS[:3]


def test_children_that_hang_die_or_cannot_are_reported_and_the_others_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{REPOSITORY}")
    tasks = [(name, (n,)) for n, name in itertools.product((1, 2), ("x", "sleeps", "dies", "raises"))]
    readings = Readings(tmp_path / "r.jsonl")
    with sweep.workers(2, {"any": 1}, timeout_seconds=3.0, module="helpers.fake_child") as (hello, askers):
        assert hello["device"] == "fake"
        with pytest.raises(RunError, match=r"(?s)6 of 8 entries failed.*no answer within 3 s") as caught:
            sweep.sweep(tasks, askers, readings, retries=0)
    assert set(readings.found) == {("x", (1,)), ("x", (2,))}
    assert "last words" in str(caught.value)


def test_an_unsteady_measurement_is_repeated_and_flagged(monkeypatch):
    seconds = itertools.cycle([0.01, 0.01, *([0.01, 0.05] * 4)[:7]])
    monkeypatch.setattr(meters, "_seconds", lambda call, count: next(seconds))
    reading = meters.measured("cpu", batch=1, repeats=7)(None, ())
    assert reading["outlier"]
    assert reading["spread_ms"] > 10


def test_a_steady_measurement_is_taken_once_and_has_its_median(monkeypatch):
    calls = []
    values = iter([0.01, 0.01, *(0.010 + 0.0001 * i for i in range(7))])
    monkeypatch.setattr(meters, "_seconds", lambda call, count: calls.append(count) or next(values))
    reading = meters.measured("cpu", batch=1, repeats=7)(None, ())
    assert not reading["outlier"]
    assert reading["median_ms"] == pytest.approx(10.3)
    assert len(calls) == 2 + 7


def test_an_interrupted_sweep_does_not_read_the_rest_first(tmp_path):
    def interrupted(task):
        if task == TASKS[1]:
            raise KeyboardInterrupt
        return good(task)

    ask, asked = counting(interrupted)
    many = [*TASKS, *(("unit", (n, n)) for n in range(100, 400))]
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(many, [ask], Readings(tmp_path / "r.jsonl"))
    assert len(asked) < len(many) / 2
