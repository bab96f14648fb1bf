"""The log of trials: what is written is read back, whatever a kill leaves of the last line."""

import json
import math
from types import MappingProxyType

import pytest

from slimjax.errors import UserError
from slimjax.search.trials import Trial, TrialLog, latest, read

CHANNELS = {"a": 8, "b": 16}


def trial(number=0, state="proposed", step=0, **fields):
    return Trial(number, state, step, CHANNELS, **fields)


def scored(number=0, step=0, score=0.5, **fields):
    return trial(number, "scored", step, score=score, **fields)


def write(path, *trials, **options) -> None:
    with TrialLog(path, **options) as log:
        log.write(*trials)


def test_written_trials_are_read_back(tmp_path):
    trials = [
        trial(cost=1.5e9, target=1e9, how="greedy", time=10.0),
        scored(score=1 / 3, cost=7.0, time=11.0),
        trial(1, "failed", 4, reason="out of memory", time=12.0),
    ]
    write(tmp_path / "trials.jsonl", *trials)
    assert read(tmp_path / "trials.jsonl") == trials


def test_a_file_may_be_named_and_is_continued(tmp_path):
    path = tmp_path / "new" / "search.jsonl"
    write(path, trial())
    write(path, scored())
    assert [t.state for t in TrialLog(path).read()] == ["proposed", "scored"]


def test_lines_say_when_they_were_written(tmp_path):
    write(tmp_path / "trials.jsonl", trial())
    assert read(tmp_path / "trials.jsonl")[0].time > 1e9


def test_lines_are_on_the_disk_when_write_returns(tmp_path):
    with TrialLog(tmp_path / "trials.jsonl") as log:
        log.write(trial(), scored())
        assert len(log.read()) == 2


def test_frozen_channels_are_written(tmp_path):
    write(tmp_path / "trials.jsonl", Trial(0, "proposed", 0, MappingProxyType(CHANNELS)))
    assert TrialLog(tmp_path / "trials.jsonl").read()[0].channels == CHANNELS


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert TrialLog(tmp_path / "none.jsonl").read() == []


def test_a_disabled_log_writes_nothing_and_reads(tmp_path):
    write(tmp_path / "other" / "trials.jsonl", trial(), enabled=False)
    assert not (tmp_path / "other").exists()
    write(tmp_path / "trials.jsonl", trial())
    with TrialLog(tmp_path / "trials.jsonl", enabled=False) as log:
        log.truncate_after(-1)
        assert len(log.read()) == 1


@pytest.mark.parametrize("cut", [1, 5, 80])
def test_a_last_line_that_was_cut_short_is_dropped(tmp_path, cut):
    path = tmp_path / "trials.jsonl"
    write(path, trial(), scored())
    path.write_text(path.read_text()[:-cut])
    assert [t.state for t in read(path)] == ["proposed"]
    write(path, scored(score=0.25))
    assert [t.score for t in read(path)] == [None, 0.25]


@pytest.mark.parametrize("change", ['"state": "won"', '"state": "scored", "colour": 1', '"state": "scored"'])
def test_any_other_damaged_line_is_named(tmp_path, change):
    path = tmp_path / "trials.jsonl"
    write(path, trial(), trial(1))
    path.write_text(path.read_text().replace('"state": "proposed"', change, 1))
    with pytest.raises(UserError, match=r"trials\.jsonl:1 is not a line of trials: .*(state|score|colour)"):
        read(path)


def test_truncation_forgets_later_steps_and_writing_goes_on(tmp_path):
    with TrialLog(tmp_path / "trials.jsonl") as log:
        log.write(*[scored(i, step=i // 2, time=1.0) for i in range(6)])
        kept = log.path.read_text().splitlines()[:4]
        log.truncate_after(1)
        assert log.path.read_text().splitlines() == kept
        log.write(scored(9, step=2))
    assert [t.trial for t in log.read()] == [0, 1, 2, 3, 9]


def test_truncation_without_a_file_is_fine(tmp_path):
    with TrialLog(tmp_path / "trials.jsonl") as log:
        log.truncate_after(0)
    assert log.read() == []


def test_the_last_line_of_a_trial_counts():
    lines = [trial(), trial(1), scored(score=0.5), scored(score=0.25)]
    assert latest(lines) == {0: lines[3], 1: lines[1]}


def test_bucket_has_the_lines_after_every_write_and_is_resumed_elsewhere(tmp_path):
    bucket = tmp_path / "bucket" / "trials.jsonl"
    with TrialLog(bucket, scratch=tmp_path / "first") as log:
        log.write(trial())
        assert len(log.read()) == 1
        log.write(scored())
    with TrialLog(bucket, scratch=tmp_path / "second") as log:
        log.write(trial(1), scored(1))
        log.truncate_after(0)
        log.write(trial(2))
    assert [t.trial for t in read(bucket)] == [0, 0, 1, 1, 2]


def test_scratch_of_another_run_does_not_leak_into_a_new_log(tmp_path):
    write(tmp_path / "one" / "trials.jsonl", trial(1), scratch=tmp_path / "scratch")
    write(tmp_path / "two" / "trials.jsonl", trial(2), scratch=tmp_path / "scratch")
    assert [t.trial for t in read(tmp_path / "two" / "trials.jsonl")] == [2]


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "won"},
        {"state": "scored"},
        {"state": "scored", "score": math.nan},
        {"state": "scored", "score": math.inf},
        {"state": "failed"},
        {"state": "proposed", "score": 0.5},
        {"state": "scored", "score": 0.5, "reason": "none"},
        {"cost": math.nan},
        {"target": math.inf},
    ],
)
def test_trials_that_contradict_themselves_are_refused(fields):
    with pytest.raises(ValueError, match="expected"):
        trial(**fields)


def test_every_line_is_strict_json(tmp_path):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    write(tmp_path / "trials.jsonl", trial(), scored(), trial(1, "failed", reason="its score is nan"))
    for line in (tmp_path / "trials.jsonl").read_text().splitlines():
        assert json.loads(line, parse_constant=refuse)["channels"] == CHANNELS
