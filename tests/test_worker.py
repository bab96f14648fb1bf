"""Child processes that answer questions: time-outs, deaths, restarts."""

import os
import pathlib

import pytest

from helpers.paths import REPOSITORY, TESTS
from slimjax.errors import RunError
from slimjax.worker import Worker


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{REPOSITORY}")
    with Worker("helpers.fake_child", "hello") as child:
        yield child


def ask(worker, unit, timeout=30.0):
    return worker.ask({"unit": unit, "sizes": [1, 2]}, timeout)


def test_a_child_answers_and_goes_on_answering(worker):
    assert [ask(worker, "x")["count"] for _ in range(3)] == [1, 2, 3]
    assert worker.hello["device"] == "fake"


def test_a_child_that_takes_too_long_is_killed_and_replaced(worker):
    ask(worker, "x")
    first = worker.hello["pid"]
    with pytest.raises(TimeoutError, match="no answer within"):
        ask(worker, "sleeps", timeout=0.5)
    assert not pathlib.Path(f"/proc/{first}").exists()
    assert ask(worker, "x")["count"] == 1
    assert worker.hello["pid"] != first


def test_a_child_that_dies_says_its_last_words_and_is_replaced(worker):
    with pytest.raises(RunError, match="exit code 3: last words"):
        ask(worker, "dies")
    assert ask(worker, "x")["count"] == 1


def test_an_error_of_the_child_is_one_line_and_does_not_end_it(worker):
    ask(worker, "x")
    with pytest.raises(RunError, match=r"^ValueError: cannot be compiled$"):
        ask(worker, "raises")
    assert ask(worker, "x")["count"] == 3


def test_what_a_library_prints_is_no_answer(worker):
    assert ask(worker, "chats")["median_ms"] == 4.0


def test_a_greeting_that_is_refused_is_an_error(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{REPOSITORY}")
    with Worker("helpers.fake_child", "refuses") as child, pytest.raises(RunError, match="no such device"):
        ask(child, "x")
