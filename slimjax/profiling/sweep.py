"""Reading many entries: in child processes, with time-outs and retries, kept on disk as they come."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slimjax import files
from slimjax.errors import RunError
from slimjax.profiling import meters
from slimjax.profiling.meters import Reading
from slimjax.progress import Progress
from slimjax.worker import Worker

Task = tuple[str, tuple[int, ...]]
"""A unit's key and the channels of its axes. `OVERHEAD` and `WHOLE` are tasks too."""

Ask = Callable[[Task], Reading]

OVERHEAD: Task = ("overhead", ())
"""What calling any program costs."""

WHOLE = "whole network"
"""The key of the network as one unit; its channels are a subnet."""


class Readings:
    """A file of readings, one line of JSON each: appended as they come, so that a killed sweep loses none.

    A last line that was cut off is dropped; of two readings of one task the later counts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self.found: dict[Task, Reading] = {}
        if self._path.exists():
            files.drop_partial_line(self._path)
            for line in self._path.read_text().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    self.found[record["unit"], tuple(record["sizes"])] = record["reading"]

    def keep(self, task: Task, reading: Reading) -> None:
        with self._lock:
            self.found[task] = reading
            with files.open_lines(self._path) as file:
                files.write_lines(file, [{"unit": task[0], "sizes": task[1], "reading": reading}])


def sweep(
    tasks: Sequence[Task],
    askers: Sequence[Ask],
    readings: Readings,
    retries: int = 2,
    label: str = "profile",
    noun: str = "entry",
) -> None:
    """Fills `readings` with all tasks; each asker is used by one thread at a time.

    Args:
      label, noun: for the line of progress (`Progress`).

    Raises:
      RunError: naming the tasks that failed `1 + retries` times; all others are kept.
    """
    waiting = [task for task in dict.fromkeys(tasks) if task not in readings.found]
    free: queue.Queue[Ask] = queue.Queue()
    for asker in askers:
        free.put(asker)
    failed: dict[Task, str] = {}
    done = len(set(tasks)) - len(waiting)

    def take(task: Task) -> None:
        ask = free.get()
        try:
            reading, reason = _attempt(ask, task, retries)
        finally:
            free.put(ask)
        if reading is None:
            failed[task] = reason
        else:
            readings.keep(task, reading)

    progress = Progress(done + len(waiting), label, noun=noun, start=done)
    with progress, ThreadPoolExecutor(len(askers)) as pool:
        for _ in pool.map(take, waiting):  # interrupted, it cancels what has not begun
            progress.advance()
    if failed:
        raise RunError(_explain(failed, len(waiting)))


def _attempt(ask: Ask, task: Task, retries: int) -> tuple[Reading | None, str]:
    reason = ""
    for _ in range(1 + retries):
        try:
            reading = ask(task)
        except (RunError, TimeoutError) as error:
            reason = str(error)
            continue
        wrong = meters.problem(reading, overhead=task == OVERHEAD)
        if wrong is None:
            return reading, ""
        reason = wrong
    return None, reason


def _explain(failed: dict[Task, str], of: int) -> str:
    shown = [f"  {key} at {'x'.join(map(str, sizes))}: {reason}" for (key, sizes), reason in failed.items()]
    more = f"\n  and {len(shown) - 5} more" if len(shown) > 5 else ""
    return (
        f"{len(failed)} of {of} entries failed:\n" + "\n".join(shown[:5]) + more + "\n"
        "The others are kept: run the same command again to try these again (a larger time-out gives them longer)."
    )


@contextlib.contextmanager
def workers(
    count: int, spec: dict[str, Any], timeout_seconds: float, module: str = "slimjax.profiling.child"
) -> Iterator[tuple[dict[str, Any], list[Ask]]]:
    """(what the children say about their device, askers of `count` child processes for `spec`)."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Worker(module, spec)) for _ in range(count)]
        children[0].start(timeout_seconds)
        yield children[0].hello, [_asker(child, timeout_seconds) for child in children]


def _asker(child: Worker, timeout_seconds: float) -> Ask:
    return lambda task: child.ask({"unit": task[0], "sizes": list(task[1])}, timeout_seconds)
