"""The lock of a run's directory: one run at a time."""

import json
import os
import socket
import subprocess
import sys

import pytest

from slimjax.errors import UserError
from slimjax.workdir.lock import WorkdirLock


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
    with WorkdirLock(directory / "lock"):
        pass


def test_lock_names_host_and_pid_while_it_is_held(tmp_path):
    with WorkdirLock(tmp_path / "new" / "lock"):
        holder = json.loads((tmp_path / "new" / "lock").read_text())
    assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())


def test_lock_of_a_living_process_is_refused_and_named(tmp_path, living):
    write_lock(tmp_path, pid=living)
    with pytest.raises(UserError, match=f"process {living} on {socket.gethostname()}"):
        enter(tmp_path)


def test_lock_is_refused_twice_in_one_process(tmp_path):
    with WorkdirLock(tmp_path / "lock"), pytest.raises(UserError, match=str(os.getpid())):
        enter(tmp_path)


def test_refused_lock_stays_with_its_holder(tmp_path, living):
    write_lock(tmp_path, pid=living)
    before = (tmp_path / "lock").read_text()
    with pytest.raises(UserError):
        enter(tmp_path)
    assert (tmp_path / "lock").read_text() == before


def test_lock_of_a_dead_process_is_taken_over_with_a_warning(tmp_path, dead, caplog):
    write_lock(tmp_path, pid=dead)
    with WorkdirLock(tmp_path / "lock"):
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
        with WorkdirLock(tmp_path / "lock"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    enter(tmp_path)


def test_half_written_lock_names_nobody_and_is_free(tmp_path):
    (tmp_path / "lock").write_text('{"host": "a", "pi')
    enter(tmp_path)
