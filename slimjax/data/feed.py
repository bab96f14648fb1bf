"""Batches on their way to the devices: made, copied and waiting before the loop asks for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

AHEAD = 2
"""Batches that lie on the devices before they are needed."""


class Feed(Iterator[Any]):
    """Takes batches on a thread, puts them on the devices, and counts the time that the loop waits for one.

    Args:
      batches: of the host; `close` closes them.
      put: host batch -> device batch.
      clock: returns seconds; for tests.

    Raises (from `next`): whatever taking or putting a batch raised.
    """

    def __init__(
        self, batches: Any, put: Callable[[Any], Any], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._batches, self._put, self._clock = batches, put, clock
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=AHEAD)
        self._closing = threading.Event()
        self._waited, self._taken, self._lap = 0.0, 0, clock()
        self._thread = threading.Thread(target=self._fill, name="feed", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        began = self._clock()
        batch, error = self._ready.get()
        self._waited += self._clock() - began
        self._taken += 1
        if error is not None:
            raise error
        return batch

    def lap(self) -> dict[str, float]:
        """Steps per second, and the share of the time spent waiting for data, since the last lap."""
        now = self._clock()
        seconds = max(now - self._lap, 1e-9)
        result = {
            "time/steps_per_second": self._taken / seconds,
            "time/data_wait": self._waited / seconds,
        }
        self._waited, self._taken, self._lap = 0.0, 0, now
        return result

    def close(self) -> None:
        """Stops the thread, then the host's batches."""
        self._closing.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(timeout=0.05)
        self._batches.close()

    def _fill(self) -> None:
        try:
            for batch in self._batches:
                self._offer((self._put(batch), None))
                if self._closing.is_set():
                    return
            raise StopIteration
        except BaseException as error:  # whatever it is, the loop is told
            self._offer((None, error))

    def _offer(self, item: tuple[Any, BaseException | None]) -> None:
        while not self._closing.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def _drain(self) -> None:
        while not self._ready.empty():
            self._ready.get_nowait()
