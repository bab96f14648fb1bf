"""The log of trials: every subnet that a search asked for, and what became of it, one line of JSON each."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from etils import epath

from slimjax import files
from slimjax.checks import check, if_given, number, one_of
from slimjax.files import write_atomic

STATES = ("proposed", "scored", "failed")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One line: what is known of a subnet at some time.

    Args:
      trial: its number; it has a line for each state that it goes through, and the last one counts.
      step: the training step, or the search's round.
      channels: of every group that it has, and the name of the option of every choice.
      cost: in the search's unit; `target`: what cost was aimed at.
      score: the lower, the better; None unless scored.
      how: which search, or which part of it, proposed it.
      reason: why it failed.
      time: seconds since the epoch; None: when it is written.

    Raises:
      ValueError: an unknown state, numbers that are not finite, a scored trial without a score, a failed one
        without a reason, or a score or reason where the state has none.
    """

    trial: int
    state: str
    step: int
    channels: Mapping[str, int | str]
    cost: float | None = None
    score: float | None = None
    target: float | None = None
    how: str = ""
    reason: str | None = None
    time: float | None = None

    def __post_init__(self) -> None:
        check("state", self.state, one_of(*STATES))
        for name in ("cost", "score", "target", "time"):
            check(name, getattr(self, name), if_given(number()))
        for name, state in (("score", "scored"), ("reason", "failed")):
            if (getattr(self, name) is not None) != (self.state == state):
                raise ValueError(f"{name}: expected one if, and only if, the trial is {state}")


class TrialLog:
    """Appends trials to a file of JSON lines; a context manager.

    Nothing can be appended to a file in a bucket. There the file is written to `scratch` and copied as a whole
    after every write.

    Args:
      path: a file, made with its directory if it is missing. Also in a bucket (`gs://...`).
      enabled: False writes nothing, but reads: all processes but one pass it.
      scratch: a local directory to write first; a temporary one by default if `path` is in a bucket.
    """

    def __init__(
        self, path: epath.PathLike, *, enabled: bool = True, scratch: str | Path | None = None
    ) -> None:
        self.path = epath.Path(path)
        if scratch is None and "://" in str(path) and enabled:
            scratch = tempfile.mkdtemp(prefix="slimjax-trials-")
        self._scratch = None if scratch is None else Path(scratch) / self.path.name
        self._enabled = enabled
        self._file: IO[str] | None = None
        self._states: dict[int, str] | None = None

    def write(self, *trials: Trial) -> None:
        """Appends a line for each; they are on the disk when this returns."""
        if not self._enabled or not trials:
            return
        self._file = self._file or self._open()
        files.write_lines(self._file, [_to_json(trial) for trial in trials])
        if self._scratch:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(self._scratch.read_bytes())

    def follow(self, trials: Iterable[Trial]) -> None:
        """Writes those whose state is not written down yet."""
        if not self._enabled:
            return
        if self._states is None:
            self._states = {number: trial.state for number, trial in latest(self.read()).items()}
        new = [trial for trial in trials if self._states.get(trial.trial) != trial.state]
        self._states |= {trial.trial: trial.state for trial in new}
        self.write(*new)

    def read(self) -> list[Trial]:
        """All lines so far (see `read`); none if there is no file."""
        return read(self.path) if self.path.exists() else []

    def truncate_after(self, step: int) -> None:
        """Forgets the lines of later steps: a run that resumes from `step` writes them again."""
        if not self._enabled:
            return
        self.close()
        self._states = None
        if self.path.exists():
            kept = [trial for trial in self.read() if trial.step <= step]
            write_atomic(self.path, "".join(json.dumps(_to_json(trial)) + "\n" for trial in kept))

    def close(self) -> None:
        """Closes the file; the next `write` opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> IO[str]:
        if self._scratch is None:
            return files.open_lines(Path(self.path))
        self._scratch.parent.mkdir(parents=True, exist_ok=True)
        self._scratch.write_bytes(self.path.read_bytes() if self.path.exists() else b"")
        return files.open_lines(self._scratch)


def read(path: epath.PathLike) -> list[Trial]:
    """Returns all lines of a log; a last line that a kill cut short is left out.

    Raises:
      UserError: any other damaged line; names file and line number.
    """
    return files.read_lines(path, "trials", lambda line: Trial(**line))


def latest(trials: Iterable[Trial]) -> dict[int, Trial]:
    """The last line of each trial, by its number."""
    return {trial.trial: trial for trial in trials}


def _to_json(trial: Trial) -> dict[str, Any]:
    now = time.time() if trial.time is None else trial.time
    return {**vars(trial), "channels": dict(trial.channels), "time": now}
