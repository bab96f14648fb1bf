"""A config file, which is Python code, with the overrides of a command line."""

from __future__ import annotations

import pathlib
import runpy
import traceback

from absl import flags
from ml_collections import ConfigDict, config_flags

from slimjax.errors import UserError


def load(path: str, overrides: list[str]) -> ConfigDict:
    """The config that a file makes, with `--config.key=value` overrides, through ml_collections."""
    if wrong := [argument for argument in overrides if not argument.startswith("--config.")]:
        raise UserError(
            f"unexpected arguments: {' '.join(wrong)}. Config fields are set by --config.key=value."
        )
    config, values, argv = _run_config_file(path), flags.FlagValues(), ["slimjax", *overrides]
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
        raise UserError(f"overrides of {path}: {_reason(error)}") from error
    return config


def _reason(error: BaseException) -> str:
    """The text of an error; ml_collections wraps KeyErrors in others, and a KeyError quotes its text."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return str(error.args[0] if error.args else error)


def _run_config_file(path: str) -> ConfigDict:
    """What `get_config` of a file returns. The file is Python code: anything can go wrong in it."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"--config: expected a Python file with get_config(), got {path!r}: no such file.")
    try:
        make = runpy.run_path(path).get("get_config")
        config = make() if callable(make) else None
    except Exception as error:
        where = f"{path}, line {_line_in(path, error)}"
        raise UserError(f"{where}: {type(error).__name__}: {error}\nMend the config file.") from error
    if not isinstance(config, ConfigDict):
        got = type(config).__name__ if callable(make) else "no such function"
        raise UserError(f"{path}: expected a function get_config() that returns a ConfigDict, got {got}.")
    return config


def _line_in(path: str, error: Exception) -> int | None:
    """The line of a file at which an error left it, or which cannot be parsed."""
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None
