"""Files on disk: written whole or not at all, read with care, and lines that grow while a program may be killed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from etils import epath

from slimjax.errors import UserError

T = TypeVar("T")

WRONG = (KeyError, TypeError, ValueError, AttributeError)
"""What making something of well-formed JSON raises if the JSON is not as expected."""


def load(
    path: epath.PathLike,
    what: str,
    schema: int | None,
    make: Callable[[dict[str, Any]], T],
    missing: str,
    mend: str,
) -> T:
    """Returns what `make` makes of the object in a file.

    Args:
      what: what the file is, for messages.
      schema: what the object's "schema" must be; None: it is a form of others, which has none.
      make: may raise any of `WRONG`.
      missing, mend: what to do if there is no such file, and if it is of no use.

    Raises:
      UserError: no such file; not a whole JSON file; numbers that are not finite; another schema; whatever
        `make` finds. The message has the path and what to do.
    """
    try:
        body = json.loads(epath.Path(path).read_text(), parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError as error:
        raise UserError(f"{what} {path}: no such file. {missing}") from error
    except OSError as error:
        raise UserError(f"{what} {path}: {error.strerror or error}. {missing}") from error
    except ValueError as error:  # bad UTF-8 and bad JSON
        raise UserError(f"{what} {path}: not a whole JSON file ({error}). {mend}") from error
    try:
        _check_schema(body, schema)
        return make(body)
    except WRONG as error:
        raise UserError(f"{what} {path}: {_reason(error)}. {mend}") from error


def read_lines(path: epath.PathLike, what: str, make: Callable[[dict[str, Any]], T]) -> list[T]:
    """Returns what `make` makes of each line; a last line that a kill cut short is left out.

    Raises:
      UserError: a line before the last is not JSON, or `make` raised one of `WRONG`; names file and line number.
    """
    complete = epath.Path(path).read_text().split("\n")[:-1]  # after the last newline: empty or partial
    made = []
    for number, line in enumerate(complete, 1):
        try:
            made.append(make(json.loads(line)))
        except WRONG as error:
            where = f"{path}:{number} is not a line of {what}"
            raise UserError(f"{where}: {_reason(error)}. Mend the line or delete it.") from error
    return made


def write_atomic(path: epath.PathLike, text: str) -> None:
    """Writes a file by way of a temporary one: a reader finds the old text or the new one, never a part."""
    target = epath.Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    temporary.write_text(text)
    temporary.replace(target)


def open_lines(path: str | os.PathLike[str]) -> IO[str]:
    """Opens a file to append lines to; made, with its directory, if it is missing."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    drop_partial_line(file)
    return file.open("a")


def write_lines(file: IO[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """Appends lines of strict JSON; they are on the disk when this returns."""
    file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    file.flush()
    os.fsync(file.fileno())


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested objects, in their order; an empty object is a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def drop_partial_line(path: Path) -> None:
    """Cuts the file after its last newline, lest the next line is glued to half of an old one."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(sum(map(len, file.read().rpartition(b"\n")[:2])))


def _check_schema(body: Any, schema: int | None) -> None:
    if schema is None and not isinstance(body, dict):
        raise ValueError(f"expected an object, got {type(body).__name__}")
    if schema is not None and (not isinstance(body, dict) or body.get("schema") != schema):
        got = body.get("schema") if isinstance(body, dict) else type(body).__name__
        raise ValueError(f"expected schema {schema}, got {got!r}")


def _reason(error: Exception) -> str:
    return f"lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")


def _finite(text: str) -> float:
    """Python reads NaN, Infinity and 1e999, which are not JSON or no numbers that it can hold."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number
