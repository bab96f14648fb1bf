"""Metrics and progress: every step once, every line JSON, an ETA that leaves compilation out."""

import json
import math

import pytest

from slimjax.workdir import metrics
from slimjax.workdir.metrics import MetricsWriter, read


def write_steps(directory, *steps: int) -> None:
    with MetricsWriter(directory / "metrics.jsonl") as writer:
        for step in steps:
            writer.write(step, {"train/loss": step / 10})


def steps_of(directory) -> list[int]:
    return [line["step"] for line in read(directory / "metrics.jsonl")]


def test_written_values_are_read_back(tmp_path):
    write_steps(tmp_path, 1, 2)
    lines = read(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["train/loss"]) for line in lines] == [(1, 0.1), (2, 0.2)]
    assert all(line["time"] > 1e9 for line in lines)


def test_line_is_in_the_file_as_soon_as_write_returns(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(1, {"loss": 0.5})
        assert steps_of(tmp_path) == [1]


def test_tensorboard_gets_an_event_file(tmp_path):
    write_steps(tmp_path, 1)
    assert sum(path.stat().st_size for path in tmp_path.glob("events.*")) > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_stay_strict_json_and_come_back(tmp_path, value):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(1, {"loss": value})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line["loss"] == str(value)
    assert str(read(tmp_path / "metrics.jsonl")[0]["loss"]) == str(value)


def test_resumed_run_has_each_step_once(tmp_path):
    write_steps(tmp_path, 1, 2, 3, 4)
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.truncate_after(2)
        for step in (3, 4, 5):
            writer.write(step, {"train/loss": 0.0})
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5]


def test_truncation_keeps_kept_lines_as_they_were(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(1, {"loss": math.nan, "top1": 1 / 3})
        before = (tmp_path / "metrics.jsonl").read_text()
        writer.write(2, {"loss": 1.0})
        writer.truncate_after(1)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_truncation_without_a_file_is_fine(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.truncate_after(0)
        writer.write(1, {"loss": 1.0})
    assert steps_of(tmp_path) == [1]


def test_partial_last_line_is_left_out(tmp_path):
    write_steps(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])
    assert steps_of(tmp_path) == [1]


def test_next_line_is_not_glued_to_a_partial_one(tmp_path):
    write_steps(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])
    write_steps(tmp_path, 2, 3)
    assert steps_of(tmp_path) == [1, 2, 3]


def test_damaged_line_in_the_middle_is_named(tmp_path):
    write_steps(tmp_path, 1, 2, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('{"step": 2', '"step": 2'))
    with pytest.raises(ValueError, match=r"metrics.jsonl:2"):
        read(path)


def test_disabled_writer_writes_nothing(tmp_path):
    with MetricsWriter(tmp_path / "other" / "metrics.jsonl", enabled=False) as writer:
        writer.write(1, {"loss": 1.0})
        writer.truncate_after(0)
    assert not (tmp_path / "other").exists()


def write_by_way_of_scratch(bucket, scratch, *steps: int) -> None:
    with MetricsWriter(bucket / "metrics.jsonl", scratch=scratch) as writer:
        writer.truncate_after(steps[0] - 1)
        for step in steps:
            writer.write(step, {"train/loss": step / 10})


def test_bucket_has_lines_and_events_after_close(tmp_path):
    write_by_way_of_scratch(tmp_path / "bucket", tmp_path / "scratch", 1, 2)
    assert steps_of(tmp_path / "bucket") == [1, 2]
    assert list((tmp_path / "bucket").glob("events.*"))


def test_bucket_is_resumed_on_another_machine(tmp_path):
    write_by_way_of_scratch(tmp_path / "bucket", tmp_path / "first", 1, 2, 3)
    write_by_way_of_scratch(tmp_path / "bucket", tmp_path / "second", 3, 4)
    assert steps_of(tmp_path / "bucket") == [1, 2, 3, 4]


def test_bucket_is_filled_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "UPLOAD_SECONDS", 0.0)
    with MetricsWriter(tmp_path / "bucket" / "metrics.jsonl", scratch=tmp_path / "scratch") as writer:
        writer.write(1, {"loss": 1.0})
        assert steps_of(tmp_path / "bucket") == [1]


def test_bucket_is_never_mistaken_for_a_local_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MetricsWriter("gs://bucket/run/metrics.jsonl", enabled=False).write(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())
