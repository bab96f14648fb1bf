"""Reading many entries: in child processes, with time-outs and retries, kept on disk as they come."""

from __future__ import annotations

import contextlib
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from slimjax.errors import RunError
from slimjax.profiling import meters
from slimjax.profiling.meters import Reading
from slimjax.profiling.readings import Readings, Task
from slimjax.progress import Progress
from slimjax.worker import Worker

Ask = Callable[[Task], Reading]

OVERHEAD: Task = ("overhead", ())
"""What calling any program costs."""

WHOLE = "whole network"
"""The key of the network as one unit; its channels are a subnet."""


def sweep(
    tasks: Sequence[Task],
    askers: Sequence[Ask],
    readings: Readings,
    retries: int = 2,
    label: str = "profile",
    noun: str = "entry",
) -> None:
    """Fills `readings` with all tasks; each asker is used by one thread at a time. Says on stderr what is reused.

    Args:
      label, noun: for the line of progress (`Progress`).

    Raises:
      RunError: naming the tasks that failed `1 + retries` times; all others are kept.
    """
    waiting = readings.want(tasks)
    if reused := readings.explain(tasks):
        print(f"{label}: {reused}", file=sys.stderr, flush=True)
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
