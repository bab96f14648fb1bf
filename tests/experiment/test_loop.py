"""Whole runs: results, resuming, killing, other device counts."""

import json
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

from helpers.paths import REPOSITORY
from helpers.runs import CONFIG, environment, final_state, lines, losses, small, stop_after
from helpers.trees import assert_trees_equal
from slimjax.errors import RunError, UserError
from slimjax.experiment.build import build
from slimjax.experiment.loop import train
from slimjax.verbs import evaluate
from slimjax.workdir.checkpoint import Checkpointer
from slimjax.workdir.rundir import RunDir

ROW = {"name", "width", "channels", "macs", "params", "top1", "top1_uncalibrated", "loss"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its directory and the rows it returned."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, train(small(), str(directory), "slimjax train ...")


def test_train_writes_a_front_with_the_documented_keys(finished):
    directory, rows = finished
    front = json.loads((directory / "front.json").read_text())
    assert front == rows
    assert [row["width"] for row in front] == [0.25, 0.6, 1.0]
    assert all(set(row) == ROW for row in front)
    assert all(0 <= row["top1"] <= 1 for row in front)


def test_train_writes_a_report_metrics_and_the_config(finished):
    directory, _ = finished
    assert "<svg" in (directory / "report.html").read_text()
    assert [line["step"] for line in lines(directory)] == list(range(1, 11))
    assert json.loads((directory / "config.json").read_text())["train"]["steps"] == 10
    assert list(directory.glob("events.out.tfevents*"))


@pytest.mark.parametrize(("drop", "steps"), [(False, 122), (True, 120)])
def test_an_epoch_has_as_many_steps_as_the_stream_has_batches(drop, steps):
    """1,297 digits in batches of 32: 40.53 batches an epoch, so 121.6 in three; 40 whole ones, so 120."""
    config = small(steps=None, epochs=3.0)
    config.data.drop_remainder = drop
    experiment = build(config)
    assert experiment.steps == steps
    batches = experiment.train_batches()
    whole = 1280 // 32
    seen = [image.tobytes() for _ in range(whole) for image in next(batches)["image"]]
    again = [image.tobytes() for image in next(batches)["image"]]
    batches.close()
    # The 17 images that are left over come next, unless they are dropped.
    assert sum(image not in seen for image in again) == (0 if drop else 17)


def test_evaluate_reports_the_same_rows_as_training(finished):
    directory, rows = finished
    assert evaluate.evaluate_subnets(str(directory), None, None) == rows


def test_evaluate_takes_widths_that_training_did_not_report(finished):
    row = evaluate.evaluate_subnets(str(finished[0]), [0.43], None)[0]
    assert row["width"] == 0.43
    assert row["channels"]["stage3"] == int(0.43 * 8)


def test_evaluate_takes_a_subnet_that_is_not_uniform(finished):
    row = evaluate.evaluate_subnets(str(finished[0]), None, {"stage1": 2, "stage3": 5})[0]
    assert row["width"] is None
    assert (row["channels"]["stage1"], row["channels"]["stage2"], row["channels"]["stage3"]) == (2, 4, 5)


def test_resumed_run_ends_bit_identical(finished, tmp_path):
    stop_after(small(), tmp_path, 5)
    assert int(final_state(small(), tmp_path).step) == 5
    rows = train(small(), str(tmp_path))
    assert_trees_equal(final_state(small(), tmp_path), final_state(small(), finished[0]))
    assert rows == finished[1]
    np.testing.assert_array_equal(losses(tmp_path), losses(finished[0]))


def test_resuming_on_another_device_count_ends_close(finished, tmp_path):
    config = small()
    stop_after(config, tmp_path, 5)
    config.devices = 8
    train(config, str(tmp_path))
    there, here = final_state(config, tmp_path), final_state(small(), finished[0])
    chex.assert_trees_all_close(there.params, here.params, rtol=1e-7, atol=1e-5)


def test_finished_run_trains_no_further(finished):
    directory, rows = finished
    before = lines(directory)
    assert train(small(), str(directory)) == rows
    assert lines(directory) == before


def test_another_config_in_the_same_directory_is_refused(finished):
    config = small(batch_size=64)
    with pytest.raises(UserError, match=r"train\.batch_size"):
        train(config, str(finished[0]))


def test_loss_that_is_no_number_stops_with_the_step_and_a_remedy(tmp_path):
    config = small()
    config.optimizer.learning_rate = 1e30
    with pytest.raises(RunError, match=r"step \d+: .*(loss|grad_norm) is nan.*learning_rate"):
        train(config, str(tmp_path))


def test_micro_batches_clipping_average_and_bfloat16_run_together(tmp_path):
    config = small(micro_batches=2, average_decay=0.9, steps=2)
    config.optimizer.clip_norm = 1.0
    config.model.dtype = "bfloat16"
    config.batch_norm.statistics = "device"
    config.devices = 8
    rows = train(config, str(tmp_path))
    assert all(np.isfinite(row["loss"]) for row in rows)


def command(directory, *overrides: str, steps: int = 60) -> list[str]:
    return [
        *(sys.executable, "-m", "slimjax", "train", "--config", CONFIG, "--workdir", str(directory)),
        *(
            f"--config.train.steps={steps}",
            "--config.train.checkpoint_every=10",
            "--config.train.log_every=1",
        ),
        *("--config.model.options.channels=(4,4,8)", "--config.evaluation.widths=(1.0,)", *overrides),
    ]


@pytest.mark.slow
def test_killed_run_resumes_and_ends_bit_identical(tmp_path):
    """kill -9 in the middle of training; the metrics and the state of the resumed run are the unbroken run's."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    run = {"cwd": REPOSITORY, "env": environment(), "check": True, "capture_output": True}
    subprocess.run(command(unbroken), **run)
    process = subprocess.Popen(command(killed), cwd=REPOSITORY, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "metrics.jsonl").exists() or len(lines_so_far(killed)) < 23:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(killed), **run)
    with Checkpointer(RunDir(killed).checkpoints, read_only=True) as saver:
        assert saver.latest_step() == 60
    config = RunDir(unbroken).read_config()
    config.devices = 1
    assert_trees_equal(final_state(config, killed), final_state(config, unbroken))
    assert learnt(killed) == learnt(unbroken)
    assert (killed / "front.json").read_text() == (unbroken / "front.json").read_text()


def learnt(directory) -> list[dict]:
    """The metrics without what depends on the machine and on when the run began."""
    machine = ("time", "programs")
    return [{k: v for k, v in line.items() if k.split("/")[0] not in machine} for line in lines(directory)]


def lines_so_far(directory) -> list[str]:
    return (directory / "metrics.jsonl").read_text().splitlines()
