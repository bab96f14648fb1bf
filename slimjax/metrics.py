"""Numbers over steps, as JSON lines for programs and as TensorBoard events for eyes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tensorboardX import SummaryWriter

from slimjax.workdir import write_atomic


class MetricsWriter:
    """Appends to `directory/metrics.jsonl` and to TensorBoard events beside it; a context manager.

    Args:
      directory: a local (or mounted) directory; made if it is missing.
      enabled: False turns every method into nothing: all processes but one pass it.
    """

    def __init__(self, directory: str | Path, *, enabled: bool = True) -> None:
        self.path = Path(directory) / "metrics.jsonl"
        self._enabled = enabled
        self._lines: IO[str] | None = None
        self._events: SummaryWriter | None = None
        self._purge_step: int | None = None
        if enabled:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_partial_line(self.path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records `values` at `step`; the JSON line is on its way to the disk when this returns."""
        if not self._enabled:
            return
        numbers = {name: float(value) for name, value in values.items()}
        lines, events = self._open()
        now = time.time()
        lines.write(_encode({"step": int(step), "time": now, **numbers}) + "\n")
        lines.flush()
        for name, number in numbers.items():
            events.add_scalar(name, number, int(step), walltime=now)

    def truncate_after(self, step: int) -> None:
        """Forgets what was written for later steps: a run that resumes from `step` writes them again."""
        if not self._enabled:
            return
        self.close()
        if self.path.exists():
            kept = [line for line in read(self.path) if line["step"] <= step]
            write_atomic(self.path, "".join(_encode(line) + "\n" for line in kept))
        self._purge_step = step + 1  # TensorBoard hides what older event files say from here on

    def close(self) -> None:
        """Closes both files; the next `write` opens them again."""
        if self._lines is not None:
            self._lines.close()
        if self._events is not None:
            self._events.close()
        self._lines = self._events = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[IO[str], SummaryWriter]:
        if self._lines is None or self._events is None:
            self._lines = self.path.open("a")
            self._events = SummaryWriter(str(self.path.parent), purge_step=self._purge_step)
        return self._lines, self._events


def read(path: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
      ValueError: a line before the last is not JSON; names file and line number.
    """
    lines = Path(path).read_text().split("\n")
    complete = lines[:-1]  # what follows the last newline is empty or partial
    return [_decode(line, f"{path}:{number}") for number, line in enumerate(complete, 1)]


def _encode(line: Mapping[str, Any]) -> str:
    """Returns strict JSON, in which NaN and the infinities are the strings "nan", "inf" and "-inf"."""
    finite = {key: value if math.isfinite(value) else str(value) for key, value in line.items()}
    return json.dumps(finite, allow_nan=False)


def _decode(text: str, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
        return {key: float(value) if isinstance(value, str) else value for key, value in line.items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{where} is not a line of metrics: {error}") from error


def _drop_partial_line(path: Path) -> None:
    """Cuts the file after its last newline, lest the next line is glued to half of an old one."""
    if not path.exists():
        return
    complete = path.read_bytes().rpartition(b"\n")[:2]
    with path.open("rb+") as file:
        file.truncate(sum(map(len, complete)))
