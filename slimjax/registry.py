"""Names of models and algorithms: those that come with the package, and a user's own, `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimjax.errors import BadValue

OWN = "PACKAGE.MODULE:NAME"


def lookup(name: str, known: Mapping[str, Any]) -> Any:
    """What a name means: an entry of `known`, or the object `name` of a module as in "my_nets.small:SmallNet".

    Raises:
      BadValue: "name" is neither; it says what is there.
    """
    if name in known:
        return known[name]
    if ":" in str(name):
        return _own(name)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadValue("name", f"expected one of {', '.join(known)}, or {OWN} of your own, got {name!r}.{hint}")


def _own(name: str) -> Any:
    """The object that `package.module:name` names."""
    path, _, attribute = name.partition(":")
    module = _import(name, path)
    if hasattr(module, attribute):
        return getattr(module, attribute)
    public = [key for key in vars(module) if not key.startswith("_")]
    near = difflib.get_close_matches(attribute, public, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadValue("name", f"expected {OWN}, got {name!r}, but {module.__file__} has no {attribute!r}.{hint}")


def _import(name: str, path: str) -> Any:
    """A module of the current folder or of what is installed. It is the user's code: anything can go wrong in it."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: it hides nothing that is installed
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise BadValue(
                "name",
                f"expected {OWN}, got {name!r}, but there is no module {error.name!r} in {here}, "
                "in PYTHONPATH or among what is installed.",
            ) from error
        raise _failed(name, error) from error
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> BadValue:
    return BadValue("name", f"importing {name!r} failed: {type(error).__name__}: {error}. Mend that module.")
