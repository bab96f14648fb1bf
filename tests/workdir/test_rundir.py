"""The workdir: one run at a time, one config for ever."""

import json
import os
import socket
import subprocess
import sys

import pytest

from slimjax.errors import UserError
from slimjax.workdir.rundir import WorkdirLock, record_run, versions


def write_lock(directory, **holder) -> None:
    (directory / "lock").write_text(json.dumps({"host": socket.gethostname(), "time": 0.0, **holder}))


@pytest.fixture
def living():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def enter(directory) -> None:
    with WorkdirLock(directory):
        pass


def test_lock_names_host_and_pid_while_it_is_held(tmp_path):
    with WorkdirLock(tmp_path / "new"):
        holder = json.loads((tmp_path / "new" / "lock").read_text())
    assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())


def test_lock_of_a_living_process_is_refused_and_named(tmp_path, living):
    write_lock(tmp_path, pid=living)
    with pytest.raises(UserError, match=f"process {living} on {socket.gethostname()}"):
        enter(tmp_path)


def test_lock_is_refused_twice_in_one_process(tmp_path):
    with WorkdirLock(tmp_path), pytest.raises(UserError, match=str(os.getpid())):
        enter(tmp_path)


def test_refused_lock_stays_with_its_holder(tmp_path, living):
    write_lock(tmp_path, pid=living)
    before = (tmp_path / "lock").read_text()
    with pytest.raises(UserError):
        enter(tmp_path)
    assert (tmp_path / "lock").read_text() == before


def test_lock_of_a_dead_process_is_taken_over_with_a_warning(tmp_path, dead, caplog):
    write_lock(tmp_path, pid=dead)
    with WorkdirLock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert f"dead process {dead}" in caplog.text


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_lock_of_an_earlier_process_with_the_same_pid_is_stale(tmp_path, living):
    write_lock(tmp_path, pid=living, started="1")
    enter(tmp_path)


def test_lock_of_another_host_is_refused(tmp_path, dead):
    write_lock(tmp_path, pid=dead, host="elsewhere")
    with pytest.raises(UserError, match="on elsewhere"):
        enter(tmp_path)


def test_lock_is_free_after_release_also_by_an_error(tmp_path):
    def fail() -> None:
        with WorkdirLock(tmp_path):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    enter(tmp_path)


def test_half_written_lock_names_nobody_and_is_free(tmp_path):
    (tmp_path / "lock").write_text('{"host": "a", "pi')
    enter(tmp_path)


CONFIG = {"seed": 0, "train": {"steps": 10, "lr": 0.1}, "data": {"dir": "/a", "batch": {"train": 8}}}


def record(directory, ignore=(), **changes) -> None:
    record_run(directory, json.dumps({**CONFIG, **changes}), ignore)


def test_record_run_writes_config_and_versions(tmp_path):
    record(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == CONFIG
    assert json.loads((tmp_path / "new" / "versions.json").read_text()) == versions()


def test_same_config_resumes(tmp_path):
    record(tmp_path)
    record(tmp_path)


def test_other_config_is_refused_with_the_keys_listed(tmp_path):
    record(tmp_path)
    with pytest.raises(UserError) as error:
        record(tmp_path, seed=1, train={"steps": 10, "lr": 0.2}, new=True)
    text = str(error.value)
    assert "seed: was 0, is 1" in text
    assert "train.lr: was 0.1, is 0.2" in text
    assert "new: was absent, is true" in text
    assert "steps" not in text


def test_refused_config_is_not_written(tmp_path):
    record(tmp_path)
    with pytest.raises(UserError):
        record(tmp_path, seed=1)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize("ignore", ["data", "data.batch", "data.batch.train"])
def test_ignored_key_may_differ(tmp_path, ignore):
    record(tmp_path)
    record(tmp_path, [ignore], data={"dir": "/a", "batch": {"train": 16}})
    assert json.loads((tmp_path / "config.json").read_text())["data"]["batch"]["train"] == 16


def test_ignored_key_is_no_prefix_of_another_name(tmp_path):
    record(tmp_path)
    with pytest.raises(UserError, match=r"data\.batch"):
        record(tmp_path, ["data.bat", "seed"], data={"dir": "/a", "batch": {"train": 16}})


def test_truncated_config_is_a_user_error(tmp_path):
    (tmp_path / "config.json").write_text('{"seed"')
    with pytest.raises(UserError, match="not JSON"):
        record(tmp_path)
