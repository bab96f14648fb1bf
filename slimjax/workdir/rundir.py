"""What a run writes down about itself: who holds the workdir, with which config and versions."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import jax
from etils import epath

from slimjax.errors import UserError
from slimjax.files import write_atomic

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

logger = logging.getLogger(__name__)


class WorkdirLock:
    """Holds a workdir for one process of one run; a context manager.

    The lock is the text of `path/lock` (host, pid, time), not its existence; an empty file is a free one. It
    is read and written under `flock`: of two runs that find a stale lock only one takes it over. A lock is stale
    when its process is gone from this host; of another host's processes nothing is known here.

    Args:
      path: the workdir, a local (or mounted) directory; made if it is missing.

    Raises (on entering):
      UserError: another process holds it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = Path(path) / "lock"

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


def record_run(path: epath.PathLike, config_json: str, ignore: Iterable[str] = ()) -> None:
    """Writes config.json and versions.json into the workdir `path`, each wholly or not at all; one process does.

    Args:
      path: the workdir.
      config_json: the config as a JSON object.
      ignore: dotted keys ("train.steps", or "data" for all below it) that may differ from an earlier run's.

    Raises:
      UserError: the workdir holds a run with another config; lists key, its value then and now.
    """
    workdir = epath.Path(path)
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / "config.json").exists():
        _check_same_config(workdir / "config.json", json.loads(config_json), frozenset(ignore))
    write_atomic(workdir / "config.json", config_json)
    write_atomic(workdir / "versions.json", json.dumps(versions(), indent=2) + "\n")


def versions() -> dict[str, str]:
    """Returns what a number may depend on: versions of Python and packages, platform, devices."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "platform": device.platform,
        "device": f"{jax.device_count()} x {device.device_kind}",
    }


def _check_same_config(file: epath.Path, config: Mapping[str, Any], ignore: frozenset[str]) -> None:
    try:
        old = dict(_flatten(json.loads(file.read_text())))
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}): mend it or take another workdir") from error
    new = dict(_flatten(config))
    lines = [
        f"\n  {key}: was {_show(old, key)}, is {_show(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if _show(old, key) != _show(new, key) and not _is_under(key, ignore)
    ]
    if lines:
        hint = "\nResume with the same config, or take another workdir."
        raise UserError(f"{file.parent} holds a run with another config:{''.join(lines)}{hint}")


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _show(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "absent"


def _is_under(key: str, ignore: frozenset[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ignore)


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
