"""Arguments of functions as users give them: their types, choices and defaults, read from the signature."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict, config_dict

from slimjax.checks import Rule, problem
from slimjax.errors import UserError

REQUIRED = inspect.Parameter.empty
"""The default of an argument that has none."""

_KINDS: Mapping[Any, type] = MappingProxyType({list: tuple, ConfigDict: dict, MappingProxyType: dict})
# Abstract types of annotations, and what stands for them in a config.
_CONCRETE: Mapping[Any, type] = MappingProxyType({Sequence: tuple, Mapping: dict, list: tuple})
_FLAGS: Mapping[str, bool] = MappingProxyType({"true": True, "false": False})


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a function.

    Args:
      kind: its type; None: nothing is known of it.
      default: `REQUIRED` if it must be given.
      choices: the only values that it may have; empty: any of its kind.
      optional: None is a value too.
    """

    name: str
    kind: type | None
    default: Any = REQUIRED
    choices: tuple[Any, ...] = ()
    optional: bool = False

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        what = (
            "one of " + ", ".join(map(str, self.choices))
            if self.choices
            else _NAMES.get(self.kind, "a value")
        )
        return f"{what}, or none" if self.optional else what

    def with_default(self, default: Any) -> Argument:
        """The same argument with another default, which tells its type."""
        return dataclasses.replace(
            self, default=default, kind=self.kind if default is None else kind(default)
        )

    def parse(self, text: str) -> Any:
        """The value that a text stands for. Raises: ValueError: it stands for none."""
        if self.optional and text.lower() == "none":
            return None
        if self.choices:
            return next(choice for choice in self.choices if str(choice) == text)
        if self.kind is bool:
            return _FLAGS[text.lower()]
        return text if self.kind is None else self.kind(text)


_NAMES: Mapping[Any, str] = MappingProxyType(
    {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
)


def of(function: Callable[..., Any]) -> dict[str, Argument]:
    """A function's arguments by name, those that collect others left out."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError:  # names that only a type checker sees: defaults tell the types
        parameters = inspect.signature(function).parameters
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: _argument(p) for name, p in parameters.items() if p.kind not in collecting}


def _argument(parameter: inspect.Parameter) -> Argument:
    annotation, optional = _without_none(parameter.annotation)
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    known = parameter.default is not REQUIRED and parameter.default is not None
    found = kind(choices[0]) if choices else kind(parameter.default) if known else _type(annotation)
    return Argument(parameter.name, found, parameter.default, choices, optional or parameter.default is None)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """An annotation, and whether it allowed None."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    return members[0], len(members) < len(typing.get_args(annotation))


def _type(annotation: Any) -> type | None:
    plain = typing.get_origin(annotation) or annotation
    plain = _CONCRETE.get(plain, plain)
    return plain if isinstance(plain, type) and plain is not REQUIRED else None


def kind(value: Any) -> type:
    """The type of a value. Configs have tuples and mappings of many types, and JSON has lists for tuples."""
    return _KINDS.get(type(value), type(value))


def parse(arguments: Mapping[str, Argument], text: str) -> dict[str, Any]:
    """Values of `name=value,name=value`.

    Raises:
      UserError: naming the argument, what was expected and what was found, and listing the arguments.
    """
    values: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in arguments or name in values:
            raise UserError(_misnamed(arguments, part, name, equals, name in values))
        try:
            values[name] = arguments[name].parse(value)
        except (ValueError, KeyError, StopIteration) as error:
            raise UserError(f"{name}: expected {arguments[name].expected}, got {value!r}.") from error
    if missing := [a.name for a in arguments.values() if a.default is REQUIRED and a.name not in values]:
        raise UserError(f"{missing[0]}: expected {arguments[missing[0]].expected}; it is not given.")
    return values


def _misnamed(arguments: Mapping[str, Argument], part: str, name: str, equals: str, twice: bool) -> str:
    if not equals:
        return f"expected NAME=VALUE,NAME=VALUE, got {part!r}."
    if twice:
        return f"{name}: given twice."
    near = difflib.get_close_matches(name, arguments, n=1)
    return f"{name}: no such argument." + (f" Did you mean {near[0]}?" if near else "")


def describe(arguments: Mapping[str, Argument]) -> str:
    """A line for each argument, under a title."""
    title = "Arguments, with their defaults:" if arguments else "It takes no arguments."
    return "\n".join([title, *lines(arguments)])


def lines(arguments: Mapping[str, Argument]) -> list[str]:
    """A line for each argument: its default, as it is written, and what it may be."""
    given = {
        name: name + ("" if a.default is REQUIRED else f"={_text(a.default)}")
        for name, a in arguments.items()
    }
    width = max(map(len, given.values()), default=0)
    return [f"  {given[name]:<{width}}  {a.expected}" for name, a in arguments.items()]


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def fill(section: ConfigDict, arguments: Mapping[str, Argument]) -> None:
    """Writes the defaults of arguments that a section of a config does not name into it."""
    with section.unlocked():
        for name, argument in arguments.items():
            if name not in section and argument.default is not REQUIRED:
                section[name] = _field(argument)


def _field(argument: Argument) -> Any:
    """The default, in a form whose type later overrides can be held to."""
    if argument.default is None:
        return None if argument.kind is None else config_dict.placeholder(argument.kind)
    return ConfigDict(dict(argument.default)) if argument.kind is dict else argument.default


def mistakes(where: str, owner: str, given: Mapping[str, Any], known: Mapping[str, Argument]) -> list[str]:
    """What is wrong with the arguments that a section of a config gives: one text each.

    Args:
      where: the section's dotted name; `owner`: who takes the arguments, both for the texts.
    """
    unfit = [_unfit(f"{where}.{a.name}", a, given) for a in known.values()]
    if unknown := sorted(set(given) - set(known)):
        unfit.append(f"{where}: {owner} has no {', '.join(unknown)}. It has: {', '.join(known) or 'none'}")
    return [text for text in unfit if text]


def _unfit(name: str, argument: Argument, given: Mapping[str, Any]) -> str:
    """What is wrong with one argument, or nothing."""
    if argument.name not in given:
        return f"{name}: missing. Expected {argument.expected}" if argument.default is REQUIRED else ""
    wanted = argument.expected if argument.choices or argument.kind is None else argument.kind.__name__
    found = problem(given[argument.name], Rule(lambda value: _fits(value, argument), wanted))
    return f"{name}: {found}" if found else ""


def _fits(value: Any, argument: Argument) -> bool:
    """Types must be equal; but an integer serves as a float."""
    if value is None:
        return argument.optional
    if argument.choices:
        return value in argument.choices
    return (
        argument.kind is None or (got := kind(value)) is argument.kind or (argument.kind, got) == (float, int)
    )
