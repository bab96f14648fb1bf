"""The one way to check a value: a rule is a predicate and the words for it."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from slimjax.errors import BadValue


class Rule(NamedTuple):
    """What a value may be.

    Args:
      holds: value -> whether it is legal; it takes values of any type.
      expected: "expected ..." goes on with these words.
    """

    holds: Callable[[Any], bool]
    expected: str


def number(
    low: float = -math.inf, high: float = math.inf, *, above: bool = False, infinite: bool = False
) -> Rule:
    """A finite number from `low` to `high`, both legal; `above`: `low` itself is not; `infinite`: infinity is, too."""

    def holds(value: Any) -> bool:
        finite = _is_finite(value) and low <= value <= high and not (above and value == low)
        return finite or (infinite and value == math.inf)

    span = _span(low, high, above)
    return Rule(holds, (f"a number {span}" if span else "a finite number") + ", or infinity" * infinite)


def integer(low: int, high: float = math.inf) -> Rule:
    """A whole number from `low` to `high`; a float is none."""

    def holds(value: Any) -> bool:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and low <= value <= high

    return Rule(holds, f"a whole number {_span(low, high, False)}")


def one_of(*names: str) -> Rule:
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


def optional(rule: Rule) -> Rule:
    """None is legal too."""
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.expected}, or None")


def if_given(rule: Rule) -> Rule:
    """None is legal too, but nobody writes it: it stands for an option that was not given."""
    return Rule(optional(rule).holds, rule.expected)


def tuple_of(rule: Rule) -> Rule:
    """A tuple or list of numbers that obey a rule."""

    def holds(value: Any) -> bool:
        return isinstance(value, tuple | list) and all(map(rule.holds, value))

    return Rule(holds, f"a tuple of {rule.expected.replace('a number', 'numbers', 1)}")


FLAG = Rule(lambda value: isinstance(value, bool), "True or False")


def problem(value: Any, rule: Rule) -> str | None:
    """What is wrong with a value, without a full stop; None: nothing is."""
    return None if rule.holds(value) else f"expected {rule.expected}, got {value!r}"


def check(name: str, value: Any, rule: Rule) -> None:
    """Raises: BadValue: the value breaks the rule."""
    if (found := problem(value, rule)) is not None:
        raise BadValue(name, f"{found}.")


def check_fields(instance: Any, rules: Mapping[str, Rule]) -> None:
    """Raises: BadValue: the first attribute of an object that breaks its rule."""
    for name, rule in rules.items():
        check(name, getattr(instance, name), rule)


@contextlib.contextmanager
def under(prefix: str) -> Iterator[None]:
    """Puts what the caller knows before the names in `BadValue`s: `under("config.algorithm.")`."""
    try:
        yield
    except BadValue as error:
        raise BadValue(f"{prefix}{error.name}", error.problem) from error


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _span(low: float, high: float, above: bool) -> str:
    """Such as "from 0 to 1"; empty: any."""
    if low == -math.inf:
        return f"of at most {high:g}" if high < math.inf else ""
    if high == math.inf:
        return f"above {low:g}" if above else f"of at least {low:g}"
    return f"above {low:g} and up to {high:g}" if above else f"from {low:g} to {high:g}"
