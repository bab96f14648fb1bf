"""Numbers over steps, as JSON lines for programs and as TensorBoard events for eyes."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from etils import epath
from tensorboardX import SummaryWriter

from slimjax import files
from slimjax.files import write_atomic

UPLOAD_SECONDS = 60.0


class MetricsWriter:
    """Appends to a file of JSON lines and to TensorBoard events beside it; a context manager.

    Nothing can be appended to a file in a bucket. There the files are written to `scratch` and copied to
    the bucket as a whole once a minute and at close, so that a kill can cost the last minute's lines.

    Args:
      path: a file, made with its directory if it is missing. Also in a bucket (`gs://...`).
      enabled: False turns every method into nothing: all processes but one pass it.
      scratch: a local directory to write first; a temporary one by default if `path` is in a bucket.
    """

    def __init__(
        self, path: epath.PathLike, *, enabled: bool = True, scratch: str | Path | None = None
    ) -> None:
        if scratch is None and "://" in str(path) and enabled:
            scratch = tempfile.mkdtemp(prefix="slimjax-metrics-")
        file = epath.Path(path)
        self.path = Path(scratch) / file.name if scratch else Path(file)
        self._target = file.parent if scratch else None
        self._uploaded = time.monotonic()
        self._enabled = enabled
        self._lines: IO[str] | None = None
        self._events: SummaryWriter | None = None
        self._purge_step: int | None = None
        if enabled:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._download()
            files.drop_partial_line(self.path)

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
        if time.monotonic() - self._uploaded >= UPLOAD_SECONDS:
            events.flush()
            self._upload()

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
        if self._enabled:
            self._upload()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[IO[str], SummaryWriter]:
        if self._lines is None or self._events is None:
            self._lines = files.open_lines(self.path)
            self._events = SummaryWriter(str(self.path.parent), purge_step=self._purge_step)
        return self._lines, self._events

    def _download(self) -> None:
        if self._target and (self._target / self.path.name).exists():
            self.path.write_bytes((self._target / self.path.name).read_bytes())

    def _upload(self) -> None:
        self._uploaded = time.monotonic()
        if self._target:
            self._target.mkdir(parents=True, exist_ok=True)
            for file in self.path.parent.iterdir():
                (self._target / file.name).write_bytes(file.read_bytes())


def read(path: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the lines of such a file; a last line that a kill cut short is left out.

    Raises:
      UserError: a line before the last is not JSON; names file and line number.
    """
    return files.read_lines(path, "metrics", _decode)


def _encode(line: Mapping[str, Any]) -> str:
    """Returns strict JSON, in which NaN and the infinities are the strings "nan", "inf" and "-inf"."""
    finite = {key: value if math.isfinite(value) else str(value) for key, value in line.items()}
    return json.dumps(finite, allow_nan=False)


def _decode(line: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, str) else value for key, value in line.items()}
