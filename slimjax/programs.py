"""Compiled programs by key: bounded in number, and counted."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Any


class Programs:
    """A least-recently-used cache of compiled programs.

    Args:
      limit: most programs alive at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._live: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
        self.compiles = 0

    def __len__(self) -> int:
        return len(self._live)

    def run(self, key: Hashable, make: Callable[[], Any], *arguments: Any) -> Any:
        """Calls the program of `key`; if there is none yet, compiles the jitted function that `make` gives."""
        if key not in self._live:
            self._keep(key, make().lower(*arguments).compile())
        self._live.move_to_end(key)
        return self._live[key](*arguments)

    def live(self) -> list[tuple[Hashable, Any]]:
        """Keys and compiled programs, the least recently used first."""
        return list(self._live.items())

    def memory(self) -> int:
        """Most bytes of temporaries and outputs that one live program needs on a device; 0 if unknown."""
        return max((_bytes(program) for program in self._live.values()), default=0)

    def _keep(self, key: Hashable, program: Any) -> None:
        self.compiles += 1
        self._live[key] = program
        while len(self._live) > self._limit:
            self._live.popitem(last=False)


def _bytes(program: Any) -> int:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes if analysis else 0
