"""A config file, which is Python code, with its arguments and the overrides of a command line.

`FILE.py:name=value,name=value` calls `get_config(name=value, name=value)` of the file, `FILE.py:help` lists the
arguments, and `slimjax:NAME` is a file that ships with the package, as in `slimjax:cifar_usnet:model=resnet20`.
"""

from __future__ import annotations

import difflib
import pathlib
import runpy
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

import slimjax
from slimjax.errors import BadValue, HelpAsked, UserError
from slimjax.experiment import signature
from slimjax.experiment.config import complete

HELP = "help"
SHIPPED = "slimjax:"


def load(named: str, overrides: list[str]) -> ConfigDict:
    """The config that a file makes, with `--config.key=value` overrides, through ml_collections.

    Options of the algorithm that neither names have their defaults.

    Args:
      named: a file and its arguments, as the module says.

    Raises:
      UserError: with the first mistake in the name, the arguments, the file or the overrides.
      HelpAsked: with the arguments of the file.
    """
    if wrong := [argument for argument in overrides if not argument.startswith("--config.")]:
        raise UserError(
            f"unexpected arguments: {' '.join(wrong)}. Config fields are set by --config.key=value."
        )
    config, values, argv = _made_by_file(named), flags.FlagValues(), ["slimjax", *overrides]
    _complete(config, overrides)
    try:
        # New attributes pass here and are judged by `validate`: all mistakes are reported at once.
        config_flags.DEFINE_config_dict(
            "config",
            config,
            flag_values=values,
            sys_argv=argv,
            lock_config=False,
            accept_new_attributes=True,
        )
        values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"overrides of {named}: {_reason(error)}") from error
    return config


def _complete(config: ConfigDict, overrides: list[str]) -> None:
    """`complete`, for the algorithm that the overrides name, if they do."""
    named = "--config.algorithm.name="
    if chosen := [override.removeprefix(named) for override in overrides if override.startswith(named)]:
        config.update({"algorithm": {"name": chosen[-1]}})
    complete(config)


def _reason(error: BaseException) -> str:
    """The text of an error; ml_collections wraps KeyErrors in others, and a KeyError quotes its text."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return str(error.args[0] if error.args else error)


class ConfigFile(NamedTuple):
    """A config file that was run: its docstring, what makes the config, and the arguments of that."""

    path: str
    docstring: str
    get_config: Callable[..., Any]
    arguments: dict[str, signature.Argument]

    @property
    def title(self) -> str:
        """The docstring's first line."""
        return self.docstring.partition("\n")[0]


def shipped() -> dict[str, str]:
    """Paths of the files that ship with the package, by the names that `slimjax:NAME` knows."""
    package = pathlib.Path(slimjax.__file__).parent
    installed, cloned = package / "configs", package.parent / "configs"
    folder = installed if installed.is_dir() else cloned
    return {path.stem: str(path) for path in sorted(folder.glob("*.py"))}


def short_name(named: str) -> str:
    """`cifar_usnet:model=resnet20`, however the file was named."""
    path, given = _split(named)
    return ":".join(filter(None, (pathlib.Path(path).stem, given)))


def read(path: str) -> ConfigFile:
    """Runs a config file. Raises: UserError: it is not there, it fails, or it has no get_config."""
    if not pathlib.Path(path).is_file():
        raise BadValue("config", f"expected a Python file with get_config(), got {path!r}: no such file.")
    found = _guarded(path, lambda: runpy.run_path(path))
    make = found.get("get_config")
    if not callable(make):
        raise UserError(
            f"{path}: expected a function get_config() that returns a ConfigDict, got no such function."
        )
    return ConfigFile(path, (found.get("__doc__") or "").strip(), make, signature.of(make))


def _made_by_file(named: str) -> ConfigDict:
    """What `get_config` of a file returns for the arguments."""
    path, given = _split(named)
    file = read(path)
    listed = signature.describe(file.arguments)
    if given.strip() == HELP:
        raise HelpAsked(f"{path}: {file.title}\n{listed}")
    try:
        values = signature.parse(file.arguments, given)
    except UserError as error:
        raise UserError(f"{path}: {error}\n{listed}") from error
    config = _guarded(path, lambda: file.get_config(**values))
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: expected a function get_config() that returns a ConfigDict, got {type(config).__name__}."
        )
    return config


def _split(named: str) -> tuple[str, str]:
    """The path of a file, and the text of its arguments."""
    if not named.startswith(SHIPPED):
        before, mark, given = named.partition(".py:")
        return (before + ".py", given) if mark else (named, "")
    name, _, given = named.removeprefix(SHIPPED).partition(":")
    if name not in (known := shipped()):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadValue("config", f"no such config: {named}.{hint} There are: {', '.join(known)}.")
    return known[name], given


def _guarded(path: str, run: Callable[[], Any]) -> Any:
    """What a part of a config file gives. It is Python code: anything can go wrong in it."""
    try:
        return run()
    except Exception as error:
        where = f"{path}, line {_line_in(path, error)}"
        raise UserError(f"{where}: {type(error).__name__}: {error}\nMend the config file.") from error


def _line_in(path: str, error: Exception) -> int | None:
    """The line of a file at which an error left it, or which cannot be parsed."""
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None
