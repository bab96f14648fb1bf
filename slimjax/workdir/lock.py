"""The lock of a run's directory: one process at a time writes there."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from slimjax.errors import UserError

logger = logging.getLogger(__name__)


class WorkdirLock:
    """Holds a workdir for one process of one run; a context manager.

    The lock is the text of a file (host, pid, time), not its existence; an empty file is a free one. It
    is read and written under `flock`: of two runs that find a stale lock only one takes it over. A lock is stale
    when its process is gone from this host; of another host's processes nothing is known here.

    Args:
      file: in the workdir, a local (or mounted) directory; made, with the directory, if it is missing.

    Raises (on entering):
      UserError: another process holds it.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._file = Path(file)

    def __enter__(self) -> WorkdirLock:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _exclusively(self._file) as file:
            holder = _parse_holder(file.read())
            if holder and _may_live(holder):
                raise UserError(self._held_by(holder))
            if holder:
                logger.warning("taking over the stale lock %s of dead process %s", self._file, holder["pid"])
            _rewrite(file, json.dumps(_myself()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _exclusively(self._file) as file:
            holder = _parse_holder(file.read())
            if holder and _same_process(holder):
                _rewrite(file, "")

    def _held_by(self, holder: Mapping[str, Any]) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("time", 0)))
        return (
            f"{self._file.parent} is in use by process {holder['pid']} on {holder['host']} since {since}. "
            f"Take another workdir, or delete {self._file} if you are sure that the process is gone."
        )


@contextmanager
def _exclusively(path: Path) -> Iterator[IO[str]]:
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
        file.seek(0)
        yield file


def _rewrite(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)


def _parse_holder(text: str) -> dict[str, Any] | None:
    """Returns who holds the lock; None if it is free or (a kill while it was written) names nobody."""
    try:
        holder = json.loads(text)
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and {"host", "pid"} <= holder.keys() else None


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "time": time.time(), "started": _started(pid)}


def _same_process(holder: Mapping[str, Any]) -> bool:
    me = _myself()
    return all(holder.get(key) == me[key] for key in ("host", "pid", "started"))


def _may_live(holder: Mapping[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and belongs to someone else
    # A restarted container has the same host name and often the same pid: compare when that pid was started.
    return holder.get("started") in (None, _started(holder["pid"]))


def _started(pid: int) -> str | None:
    """Returns when process `pid` was started, in clock ticks since boot; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19]  # the 22nd field, counted after the two before ")"
