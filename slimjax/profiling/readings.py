"""Readings on disk: kept as they come, and taken again by a later call only where that is wanted and said."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from slimjax import files
from slimjax.profiling.meters import Reading

Task = tuple[str, tuple[int, ...]]
"""A unit's key and the channels of its axes, or what `sweep` names beside units."""

Time = float | None
"""Seconds since the epoch; None: the line does not say."""

_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))


class Readings:
    """A file of readings, one line of JSON each: appended as they come, so that a killed sweep loses none.

    Each line names the call that read it. A line `{"end": call}` says that the call has all it wanted, so
    readings after the last one of its own are what an interrupted call left. A last line that was cut off is
    dropped; of two readings of one task the later counts.

    Attributes:
      found: all readings that this call has.
      reused: those of them that it has asked for and that were in the file; when they were read.
      fresh: how many it has read itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        call: str = "",
        reuse: bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        call: what is done, in a word of its own: the same command has the same.
        reuse: True takes every reading in the file, False none; None those that the same call left when it was
          interrupted.
        clock: for tests.
        """
        self._path, self._call, self._reuse, self._clock = Path(path), call, reuse, clock
        self._lock = threading.Lock()
        self._times: dict[Task, Time] = {}
        self.found: dict[Task, Reading] = {}
        self.reused: dict[Task, Time] = {}
        self.fresh = 0
        for record in self._records():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._take(record)
        if reuse is False:
            self.end()  # lest a later call goes on with what this one did not want

    def _records(self) -> Iterator[Any]:
        if not self._path.exists():
            return
        files.drop_partial_line(self._path)
        for line in self._path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def _take(self, record: dict[str, Any]) -> None:
        if "end" in record:
            if self._reuse is None and record["end"] == self._call:
                self.found, self._times = {}, {}
        elif self._reuse or (self._reuse is None and record.get("call") == self._call):
            task = record["unit"], tuple(record["sizes"])
            self.found[task], self._times[task] = record["reading"], record.get("time")

    def want(self, tasks: Collection[Task]) -> list[Task]:
        """The tasks that are to be read, each once; the others count as `reused`, unless this call has read them."""
        self.reused |= {task: self._times[task] for task in tasks if task in self._times}
        return [task for task in dict.fromkeys(tasks) if task not in self.found]

    def keep(self, task: Task, reading: Reading) -> None:
        line = {"unit": task[0], "sizes": task[1], "reading": reading}
        with self._lock:
            self.found[task] = reading
            self.fresh += 1
            self._append({**line, "time": round(self._clock(), 3), "call": self._call})

    def end(self) -> None:
        """This call is complete: the next one that is the same begins anew."""
        with self._lock:
            self._append({"end": self._call})

    def _append(self, line: dict[str, Any]) -> None:
        with files.open_lines(self._path) as file:
            files.write_lines(file, [line])

    def origin(self) -> dict[str, Any]:
        """How many readings are this call's own, how many are not, and the age of the latter in seconds."""
        ages = self._ages(self.reused.values())
        return {
            "fresh": self.fresh,
            "reused": len(self.reused),
            "reused_newest_seconds": min(ages, default=None),
            "reused_oldest_seconds": max(ages, default=None),
            "reused_of_unknown_age": len(self.reused) - len(ages),
        }

    def oldest(self) -> float:
        """When the oldest one was read that says it, in seconds since the epoch; now, if all are fresh."""
        return self._clock() - max(self._ages(self.reused.values()), default=0.0)

    def explain(self, tasks: Sequence[Task]) -> str | None:
        """A line that says which of the tasks are reused and how old they are; None: none is."""
        times = [self._times[task] for task in set(tasks) if task in self._times]
        if not times:
            return None
        source = "an earlier call that did not finish" if self._reuse is None else "the cache"
        ages = self._ages(times)
        parts = [f"read {_span(min(ages), max(ages))} ago"] if ages else []
        if unknown := len(times) - len(ages):
            parts.append(f"{unknown} of unknown age")
        old = ", ".join(parts)
        return f"{len(times)} of {len(set(tasks))} readings are from {source}: {old} (--no-reuse reads them again)"

    def _ages(self, times: Collection[Time]) -> list[float]:
        now = self._clock()
        return [round(max(0.0, now - moment), 3) for moment in times if moment is not None]


def _span(low: float, high: float) -> str:
    newest, oldest = _words(low), _words(high)
    if newest == oldest:
        return oldest
    count, unit = newest.split()
    return f"{count if oldest.endswith(unit) else newest} to {oldest}"


def _words(seconds: float) -> str:
    """Such as "3 days": in the largest unit of which there are two."""
    name, size = next((unit for unit in _UNITS if seconds >= 2 * unit[1]), _UNITS[-1])
    count = round(seconds / size)
    return f"{count} {name if count != 1 else name.removesuffix('s')}"
