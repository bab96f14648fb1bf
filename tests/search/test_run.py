"""What holds for every search, and the loop that runs one: replay, kills, failures."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers.paths import REPOSITORY, TESTS
from helpers.searches import SEARCHES, SPACE, cost, error, run_into
from slimjax.errors import RunError, UserError
from slimjax.search.base import target_name, usable
from slimjax.search.greedy import greedy
from slimjax.search.run import Tolerance
from slimjax.search.trials import TrialLog, latest


@pytest.fixture(params=SEARCHES)
def searcher(request):
    return SEARCHES[request.param]()


def states(searcher, score=error):
    """(state, what it asks for), from the first to the last but one."""
    state = searcher.init()
    while not searcher.done(state):
        yield state, searcher.ask(state)
        state = searcher.tell(state, score(searcher.ask(state)))


def as_bytes(state):
    return [np.asarray(leaf).tobytes() for leaf in state]


def some_fail(subnets):
    """A fifth of all; which ones depends on the subnet alone."""
    return np.where(subnets @ np.arange(1, 6) // 8 % 5 == 0, np.nan, error(subnets))


@pytest.mark.parametrize("score", [error, some_fail])
def test_every_subnet_is_legal_and_asked_for_once(searcher, score):
    rows = []
    for _, asked in states(searcher, score):
        assert asked.dtype == np.int32
        rows += [tuple(SPACE.check(row)) for row in asked]
    assert len(rows) == len(set(rows)) > 20


def test_asking_and_telling_leave_the_state_as_it_was(searcher):
    for state, asked in states(searcher):
        before = as_bytes(state)
        again = searcher.ask(state)
        again[:] = 0
        first, second = (searcher.tell(state, error(asked)) for _ in range(2))
        assert as_bytes(state) == before
        assert as_bytes(first) == as_bytes(second)
        np.testing.assert_array_equal(searcher.ask(state), asked)


def test_state_keeps_its_shapes(searcher):
    shapes = {tuple(np.shape(leaf) for leaf in state) for state, _ in states(searcher)}
    assert len(shapes) == 1


def test_a_search_that_is_restored_from_its_arrays_goes_on_alike(searcher):
    pairs = list(states(searcher))
    state, _ = pairs[len(pairs) // 2]
    restored = type(state)(*[np.array(leaf) for leaf in state])
    told = searcher.tell(restored, error(searcher.ask(restored)))
    np.testing.assert_array_equal(searcher.ask(told), pairs[len(pairs) // 2 + 1][1])


def test_what_is_found_meets_its_target_and_does_not_fail(searcher):
    for state, _ in states(searcher, some_fail):
        for name, subnet in searcher.found(state).items():
            assert cost(subnet) <= float(name)
            assert np.isfinite(some_fail(subnet[None])).all()


def test_scores_of_another_shape_are_refused(searcher):
    state = searcher.init()
    with pytest.raises(ValueError, match="scores: expected shape"):
        searcher.tell(state, error(searcher.ask(state))[:-1])


def test_done_asks_for_nothing(searcher, tmp_path):
    state = run_into(tmp_path, searcher)
    assert searcher.done(state)
    assert searcher.ask(state).shape == (0, 5)


def test_target_names_are_short_and_exact():
    assert [target_name(t) for t in (305166496, 3e8, 1.25, np.float64(0.1))] == [
        "305166496",
        "300000000",
        "1.25",
        "0.1",
    ]


def test_scores_that_are_not_finite_count_as_failures():
    np.testing.assert_array_equal(usable([1, np.inf, -np.inf, np.nan], 4), [1, np.nan, np.nan, np.nan])


class Counting:
    """A score that counts the subnets that it was asked for."""

    def __init__(self, score=error) -> None:
        self.score, self.count = score, 0

    def __call__(self, subnets):
        self.count += len(subnets)
        return self.score(subnets)


def lines(path):
    """The log without its times."""
    text = (path / "trials.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in text.splitlines()]


def test_run_ends_where_the_searcher_alone_does(searcher, tmp_path):
    *_, (state, asked) = states(searcher)
    assert as_bytes(run_into(tmp_path, searcher)) == as_bytes(searcher.tell(state, error(asked)))


def test_log_has_every_trial_as_proposed_and_as_it_turned_out(searcher, tmp_path):
    run_into(tmp_path, searcher)
    rounds = [asked for _, asked in states(searcher)]
    expected = []
    for step, asked in enumerate(rounds):
        first = sum(map(len, rounds[:step]))
        for state in ("proposed", "scored"):
            expected += [
                {
                    "trial": first + i,
                    "state": state,
                    "step": step,
                    "channels": SPACE.to_channels(row),
                    "cost": float(cost(row)),
                    "score": float(error(row)) if state == "scored" else None,
                    "target": 7.0,
                    "how": "test",
                    "reason": None,
                }
                for i, row in enumerate(asked)
            ]
    assert lines(tmp_path) == expected


def test_a_finished_log_is_replayed_without_scoring(searcher, tmp_path):
    state = run_into(tmp_path, searcher, some_fail)
    before = (tmp_path / "trials.jsonl").read_text()
    score = Counting(some_fail)
    assert as_bytes(run_into(tmp_path, searcher, score)) == as_bytes(state)
    assert score.count == 0
    assert (tmp_path / "trials.jsonl").read_text() == before


def test_a_log_cut_anywhere_ends_as_if_it_had_not_been(searcher, tmp_path):
    state = run_into(tmp_path / "whole", searcher)
    text = (tmp_path / "whole" / "trials.jsonl").read_text()
    for number, end in enumerate(range(0, len(text), len(text) // 12)):
        cut = tmp_path / str(number)
        cut.mkdir()
        (cut / "trials.jsonl").write_text(text[:end])
        score = Counting()
        assert as_bytes(run_into(cut, searcher, score)) == as_bytes(state)
        assert lines(cut) == lines(tmp_path / "whole")
        assert score.count == text.count("scored") - text[:end].rpartition("\n")[0].count("scored")


VICTIM = """
import os, signal, sys
from pathlib import Path
import slimjax.search.trials as trials
from helpers.searches import SEARCHES, error, run_into

writes, kill_at, fsync = 0, int(sys.argv[3]), os.fsync

def deadly(number):
    global writes
    writes += 1
    if writes == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)

def score(subnets):
    if writes == -kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return error(subnets)

os.fsync = deadly
run_into(Path(sys.argv[2]), SEARCHES[sys.argv[1]](), score)
"""


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_is_killed_again_and_again_ends_as_if_it_had_not_been(name, tmp_path):
    """In a write; while scoring; in a write again, its last line being cut short as well."""
    for kill_at in (3, -2, 4):
        command = [sys.executable, "-c", VICTIM, name, str(tmp_path / "killed"), str(kill_at)]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        assert subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode == -9
    log = tmp_path / "killed" / "trials.jsonl"
    log.write_text(log.read_text()[:-7])
    states = [run_into(tmp_path / where, SEARCHES[name]()) for where in ("killed", "unbroken")]
    assert as_bytes(states[0]) == as_bytes(states[1])
    assert lines(tmp_path / "killed") == lines(tmp_path / "unbroken")


def test_greedy_slimming_to_a_lower_target_goes_on_from_the_log(tmp_path):
    run_into(tmp_path, greedy(SPACE, cost, [3000]))
    before, score = len(latest(TrialLog(tmp_path / "trials.jsonl").read())), Counting()
    further = greedy(SPACE, cost, [3000, 1000])
    state = run_into(tmp_path, further, score)
    assert score.count == len(latest(TrialLog(tmp_path / "trials.jsonl").read())) - before
    assert set(further.found(state)) == {"3000", "1000"}


def test_all_processes_go_on_from_the_same_state(searcher, tmp_path):
    """One that comes to other scores, with states as another one has shared them."""
    shared, rounds = [], {"leader": [], "follower": []}

    def asked_by(name, score):
        return lambda subnets: rounds[name].append(subnets.tolist()) or score(subnets)

    first = run_into(
        tmp_path / "a", searcher, asked_by("leader", error), share=lambda s: shared.append(s) or s
    )
    others = asked_by("follower", lambda subnets: -error(subnets))
    last = run_into(tmp_path / "b", searcher, others, share=lambda s: shared.pop(0))
    assert rounds["leader"] == rounds["follower"]
    assert as_bytes(first) == as_bytes(last)


def test_the_log_is_read_before_any_process_writes_it(tmp_path):
    """What another process writes while this one waits for it is not taken for what was there before."""
    run_into(tmp_path / "other", SEARCHES["evolution"]())

    def share(state):
        shutil.copy(tmp_path / "other" / "trials.jsonl", tmp_path)
        return state

    score = Counting()
    run_into(tmp_path, SEARCHES["greedy"](), score, share=share)
    assert score.count > 0


def test_a_log_of_another_search_is_refused(tmp_path):
    run_into(tmp_path, SEARCHES["greedy"]())
    with pytest.raises(UserError, match=r"trials\.jsonl: its trial 0 is .*another search"):
        run_into(tmp_path, SEARCHES["evolution"]())


def test_a_subnet_without_a_finite_score_is_logged_as_failed(searcher, tmp_path):
    def score(subnets):
        return np.where(subnets[:, 0] < 30, -np.inf, error(subnets))

    run_into(tmp_path, searcher, score, tolerance=Tolerance(share=1.0))
    ended = [line for line in lines(tmp_path) if line["state"] != "proposed"]
    assert all((line["channels"]["g0"] < 30) == (line["state"] == "failed") for line in ended)
    assert {line["reason"] for line in ended} == {None, "its score is -inf"}


def test_one_bad_subnet_does_not_take_the_others_with_it(tmp_path):
    def score(subnets):
        if (subnets[:, 1] == 24).any():
            raise RunError("out of memory")
        return error(subnets)

    run_into(tmp_path, SEARCHES["evolution"](), score)
    ended = [line for line in lines(tmp_path) if line["state"] != "proposed"]
    assert all((line["channels"]["g1"] == 24) == (line["state"] == "failed") for line in ended)
    assert {line["reason"] for line in ended} == {None, "out of memory"}


def test_other_errors_end_the_search_and_the_log_stays_good(searcher, tmp_path):
    calls = []

    def score(subnets):
        calls.append(len(subnets))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return error(subnets)

    with pytest.raises(KeyboardInterrupt):
        run_into(tmp_path, searcher, score)
    run_into(tmp_path, searcher)
    run_into(tmp_path / "unbroken", searcher)
    assert lines(tmp_path) == lines(tmp_path / "unbroken")


def test_too_many_failures_stop_the_search_and_it_goes_on_once_mended(tmp_path):
    sick = [False]

    def score(subnets):
        return np.full(len(subnets), np.nan) if sick[0] else error(subnets)

    def catching(subnets):
        result = score(subnets)
        sick[0] = True  # from the second round on
        return result

    searcher = SEARCHES["evolution"]()
    with pytest.raises(
        RunError, match=r"16 of 24 trials failed.*nan.*lines from step 1 on in .*trials\.jsonl"
    ):
        run_into(tmp_path, searcher, catching)
    log = TrialLog(tmp_path / "trials.jsonl")
    log.truncate_after(0)
    state = run_into(tmp_path, searcher)
    assert as_bytes(state) == as_bytes(run_into(tmp_path / "healthy", searcher))


def test_few_failures_are_borne_before_there_are_enough_trials(tmp_path):
    def score(subnets):
        return np.where(np.arange(len(subnets)) < 5, np.nan, error(subnets))  # 5 of 8

    options = {"tolerance": Tolerance(share=0.5, trials=9)}
    with pytest.raises(RunError, match="10 of 16 trials failed"):
        run_into(tmp_path / "a", SEARCHES["evolution"](), score, **options)
    run_into(tmp_path / "b", SEARCHES["evolution"](), score, tolerance=Tolerance(share=5 / 8, trials=1))
