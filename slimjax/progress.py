"""How far a loop is and how long it will take: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichBar

GAP = "  "


class Progress:
    """Counts the steps of one loop; a context manager.

    In a log: `train  120/500  24%  3.1 step/s  ETA 0:02:03  loss 0.41`, at most every `every_seconds`, and a
    last line with the time taken. Rate and ETA leave the first step out, which compiles.

    Args:
      total: steps of the whole loop.
      label: what the loop does, in a word.
      noun: what a step is called.
      stream: where to write.
      every_seconds: seconds between two lines of a log.
      start: steps that an earlier run has done.
      enabled: False writes nothing: all processes but one pass it.
      clock: returns seconds; for tests.
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        noun: str = "step",
        stream: TextIO | None = None,
        every_seconds: float = 10,
        start: int = 0,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._label, self._noun = total, label, noun
        self._stream = sys.stderr if stream is None else stream
        self._every_seconds, self._enabled, self._clock = every_seconds, enabled, clock
        self._done = start
        self._values: dict[str, float] = {}
        self._began = self._last_line = clock()
        self._warm: tuple[int, float] | None = None  # steps done and time when the first step was over
        self._bar = self._make_bar() if enabled and self._stream.isatty() else None

    def advance(self, n: int = 1, **values: float) -> None:
        """Counts `n` more steps; `values` (the loss, say) are shown until others of the same name come."""
        self._done += n
        self._values |= values
        now = self._clock()
        self._warm = self._warm or (self._done, now)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, status=self._status(now))
        elif now - self._last_line >= self._every_seconds:
            self._last_line = now
            self._print(self._status(now))

    def say(self, *lines: str) -> None:
        """Writes lines that stay, above the bar or in the log."""
        for line in lines if self._enabled else ():
            if self._bar is not None:
                self._bar.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now = self._clock()
        summary = self._status(now, last=True)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], status=summary)
            self._bar.stop()
        else:
            self._print(summary)

    def _make_bar(self) -> RichBar:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
        )
        bar = RichBar(*columns, console=Console(file=self._stream))
        bar.add_task(self._label, total=self._total, completed=self._done, status="")
        return bar

    def _print(self, status: str) -> None:
        if self._enabled:
            print(self._label, status, sep=GAP, file=self._stream, flush=True)

    def _status(self, now: float, *, last: bool = False) -> str:
        """Returns `120/500  24%  3.1 step/s  ETA 0:02:03  loss 0.41`; the `last` one has the time taken."""
        rate = self._rate(now)
        percent = 100 * self._done // max(self._total, 1)
        parts = [f"{self._done}/{self._total}", f"{percent}%"]
        if rate:
            parts.append(f"{_format_rate(rate)} {self._noun}/s")
        if last:
            parts.append(f"in {_format_seconds(now - self._began)}")
        elif rate:
            parts.append(f"ETA {_format_seconds(max(self._total - self._done, 0) / rate)}")
        return GAP.join(parts + [f"{name} {value:.4g}" for name, value in self._values.items()])

    def _rate(self, now: float) -> float | None:
        """Returns steps per second since the first was over; None until a second one is."""
        if self._warm is None:
            return None
        steps, seconds = self._done - self._warm[0], now - self._warm[1]
        return steps / seconds if steps > 0 and seconds > 0 else None


class Stopwatch:
    """The seconds spent inside of it; a context manager that is entered again and again."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._spent, self._began = clock, 0.0, 0.0

    def __enter__(self) -> Stopwatch:
        self._began = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spent += self._clock() - self._began

    def lap(self) -> float:
        """Seconds since the last lap."""
        spent, self._spent = self._spent, 0.0
        return spent


def _format_rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _format_seconds(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
