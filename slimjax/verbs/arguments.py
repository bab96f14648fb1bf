"""Arguments of the command line: how they are parsed, which were given, and how a message names them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from slimjax.errors import UserError

Define = Callable[[argparse.ArgumentParser], None]
Commands = Mapping[str, tuple[str, Define]]
"""By name: what a command does, and the function that defines its options."""

OPTION_OF = MappingProxyType(
    {"name": "model", "timeout_seconds": "timeout", "groups": "only", "width": "widths"}
)
"""Options for arguments of library code that have another name there."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def add_commands(parser: argparse.ArgumentParser, what: str, commands: Commands) -> None:
    """A subparser for each command; `what` of the parsed arguments is the command's name."""
    subparsers = parser.add_subparsers(
        title=f"{what}s", required=True, metavar=what.upper(), dest=what, parser_class=Parser
    )
    for name, (does, define) in commands.items():
        define(subparsers.add_parser(name, help=does, description=does, allow_abbrev=False))


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given; the others have their defaults where they are used."""
    found = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def refuse(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises: UserError: one of these options was given, and nothing would use it."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value is not False:  # 0 was given
            raise UserError(f"{_option(name)}: {why}")


def as_written(name: str, arguments: argparse.Namespace) -> str:
    """The option that gave library code an argument of this name; the name itself, where none did."""
    for known in (name, OPTION_OF.get(name, name)):
        if getattr(arguments, known, None) is not None:
            return _option(known)
    return name


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
