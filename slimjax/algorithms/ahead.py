"""A search that begins before its result is needed, while the devices train."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from slimjax import sharding
from slimjax.algorithms.history import Arrays


class Ahead:
    """A function of the history, begun on a thread before its result is asked for.

    The result is the function's, whether it was begun or not: a resumed run gets the same.
    """

    def __init__(self, compute: Callable[[Arrays], list[Arrays]]) -> None:
        self._compute = compute
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")  # starts when used
        self._begun: tuple[int, Future[list[Arrays]]] | None = None

    def begin(self, arrays: Arrays) -> None:
        self._begun = int(arrays["count"]), self._pool.submit(self._compute, arrays)

    def result(self, arrays: Arrays) -> list[Arrays]:
        begun, self._begun = self._begun, None
        waiting = begun is not None and begun[0] == int(arrays["count"])
        found = begun[1].result() if begun and waiting else self._compute(arrays)
        return sharding.from_leader(found)  # arithmetic may differ between hosts in the last bit
