"""Values are checked in one way, and a message names a field as it was written."""

import math
from fractions import Fraction

import numpy as np
import pytest

from slimjax import checks
from slimjax.checks import FLAG, check, if_given, integer, number, one_of, optional, problem, tuple_of
from slimjax.errors import BadValue

NO_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None, (1,), np.ones(2), 1j]


@pytest.mark.parametrize(
    ("rule", "legal", "illegal"),
    [
        (number(), [0, -1.5, np.float32(2), np.int64(3), Fraction(1, 2)], NO_NUMBERS),
        (number(0), [0, 0.0, 1e9], [-1e-9, *NO_NUMBERS]),
        (number(0, above=True), [1e-9, 5], [0, 0.0, -1, *NO_NUMBERS]),
        (number(0, infinite=True), [0, np.inf], [-1, -np.inf, np.nan, "inf", None]),
        (number(0, 1), [0, 0.5, 1], [-0.1, 1.1, *NO_NUMBERS]),
        (number(0, 1, above=True), [0.5, 1], [0, 1.1, *NO_NUMBERS]),
        (number(high=5), [-100, 5], [5.1, *NO_NUMBERS]),
        (integer(1), [1, np.int32(7), 10**12], [0, 1.0, 2.5, np.float64(1), *NO_NUMBERS]),
        (integer(0, 3), [0, 3], [-1, 4, *NO_NUMBERS]),
        (one_of("a", "b"), ["a", "b"], ["c", "", None, 1, ["a"]]),
        (optional(integer(2)), [None, 2], [1, "2"]),
        (if_given(integer(2)), [None, 2], [1, "2"]),
        (tuple_of(number(0, above=True)), [(), (1, 0.5), [2]], [(0,), (1, "x"), 1, "ab", None]),
        (FLAG, [True, False], [0, 1, "True", None, np.bool_(True)]),
    ],
)
def test_a_rule_tells_legal_values_from_illegal_ones(rule, legal, illegal):
    assert [value for value in legal if not rule.holds(value)] == []
    assert [value for value in illegal if rule.holds(value)] == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (number(), "a finite number"),
        (number(0), "a number of at least 0"),
        (number(0, above=True), "a number above 0"),
        (number(0, above=True, infinite=True), "a number above 0, or infinity"),
        (number(0, 1), "a number from 0 to 1"),
        (number(0.25, 1, above=True), "a number above 0.25 and up to 1"),
        (number(high=2000), "a number of at most 2000"),
        (integer(1), "a whole number of at least 1"),
        (integer(0, 3), "a whole number from 0 to 3"),
        (one_of("a", "b"), "one of a, b"),
        (optional(integer(2)), "a whole number of at least 2, or None"),
        (if_given(integer(2)), "a whole number of at least 2"),
        (tuple_of(number(0, above=True)), "a tuple of numbers above 0"),
        (FLAG, "True or False"),
    ],
)
def test_a_rule_says_what_it_expects(rule, words):
    assert rule.expected == words
    assert problem(object, rule) == f"expected {words}, got <class 'object'>"


def test_a_legal_value_is_no_problem():
    assert problem(0.5, number(0, 1)) is None
    check("share", 0.5, number(0, 1))


def test_a_message_has_the_name_and_the_prefixes_of_all_callers():
    with (
        pytest.raises(
            BadValue, match=r"^config\.algorithm\.search\.beta: expected a number of .* 0, got -1\.$"
        ),
        checks.under("config.algorithm."),
        checks.under("search."),
    ):
        check("beta", -1, number(0))


def test_prefixes_are_for_bad_values_only():
    with pytest.raises(KeyError, match=r"^'beta'$"), checks.under("search."):
        raise KeyError("beta")
