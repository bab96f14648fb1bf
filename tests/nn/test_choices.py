"""Choices: options, conditions, shares of weights, and windows of kernels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.trees import assert_trees_equal
from slimjax.errors import UserError
from slimjax.nn.choices import Choice, Gate, When, Window, holds, share

DEPTH = Choice("depth", ("2", "3", "4"))
OPERATOR = Choice("operator", ("a", "b"), ordered=False)
SIDE = Choice("side", ("3", "5", "7"))
WINDOW = Window(SIDE, (3, 5, 7))
UNDER = (When(DEPTH, (1, 2)), When(OPERATOR, (1,)))


@pytest.mark.parametrize("options", [(), ("a", "a")])
def test_choice_refuses_options_that_are_none_or_one_twice(options):
    with pytest.raises(UserError, match="choice 'x': expected different options"):
        Choice("x", options)


def test_choice_refuses_an_option_that_it_lacks():
    assert [DEPTH.position(option) for option in DEPTH.options] == [0, 1, 2]
    with pytest.raises(UserError, match="choice 'depth': expected one of 2, 3, 4, got '5'"):
        DEPTH.position("5")


def test_conditions_hold_where_every_choice_takes_one_of_its_options():
    pairs = list(itertools.product(range(3), range(2)))
    want = [depth >= 1 and operator == 1 for depth, operator in pairs]
    found = [holds(UNDER, {"depth": depth, "operator": operator}) for depth, operator in pairs]
    assert found == want
    columns = np.array(pairs).T
    np.testing.assert_array_equal(holds(UNDER, {"depth": columns[0], "operator": columns[1]}), want)
    traced = jax.jit(lambda depth, operator: holds(UNDER, {"depth": depth, "operator": operator}))
    np.testing.assert_array_equal(traced(*columns), want)
    assert holds((), {}) is True


def test_share_is_the_chance_that_conditions_hold():
    weights = {"depth": np.array([0.2, 0.3, 0.5]), "operator": np.array([0.6, 0.4])}
    chances = [
        weights["depth"][depth] * weights["operator"][operator]
        for depth, operator in itertools.product(range(3), range(2))
        if holds(UNDER, {"depth": depth, "operator": operator})
    ]
    assert share(UNDER, weights) == pytest.approx(sum(chances))
    assert share((), weights) == 1


@pytest.mark.parametrize("sizes", [(3, 5), (3, 4, 5), (5, 3, 7), (3, 3, 5)])
def test_window_refuses_sizes_without_a_common_middle(sizes):
    with pytest.raises(
        UserError, match="window of choice 'side': expected 3 rising sizes, all odd or all even"
    ):
        Window(SIDE, sizes)


def middle(kernel, size):
    """By hand: the middle of the first two axes."""
    low = (kernel.shape[0] - size) // 2
    return kernel[low : low + size, low : low + size]


def kernel_of(side=7):
    return np.random.default_rng(0).normal(size=(side, side, 1, 2)).astype(np.float32)


@pytest.mark.parametrize("option", range(3))
def test_static_window_is_the_middle_of_the_kernel(option):
    kernel = kernel_of()
    found = WINDOW.narrow(jnp.asarray(kernel), [0, 1], Gate(option))
    np.testing.assert_array_equal(found, middle(kernel, WINDOW.sizes[option]))
    again = WINDOW.narrow(found, [0, 1], Gate(option))
    np.testing.assert_array_equal(again, found, "a kernel that was cut before passes through")


@pytest.mark.parametrize(("top", "option"), [(2, 0), (2, 1), (2, 2), (1, 0), (1, 1), (0, 0)])
def test_traced_window_is_the_middle_with_zeros_around_it(top, option):
    """Up to the largest option of the program, whose middle is cut out. NaN around it is gone."""
    kernel, size = kernel_of(), WINDOW.sizes[option]
    dirty = np.full_like(kernel, np.nan)
    low = (7 - size) // 2
    dirty[low : low + size, low : low + size] = middle(kernel, size)
    around = (WINDOW.sizes[top] - size) // 2
    want = np.pad(middle(kernel, size), [(around, around)] * 2 + [(0, 0)] * 2)
    narrow = jax.jit(lambda kernel, index: WINDOW.narrow(kernel, [0, 1], Gate(top, index)))
    assert_trees_equal(narrow(dirty, jnp.int32(option)), want)


def test_soft_window_is_the_sum_of_weight_times_middle():
    kernel, weights = kernel_of(), np.array([0.5, 0.2, 0.3], np.float32)
    padded = [np.pad(middle(kernel, n), [((7 - n) // 2,) * 2] * 2 + [(0, 0)] * 2) for n in WINDOW.sizes]
    want = sum(w * part for w, part in zip(weights, padded, strict=True))
    found = WINDOW.narrow(jnp.asarray(kernel), [0, 1], Gate(2, weights=jnp.asarray(weights)))
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-7)


def test_windows_of_even_sizes_have_a_middle_too():
    window = Window(OPERATOR, (2, 6))
    line = jnp.arange(6.0)
    np.testing.assert_array_equal(window.narrow(line, [0], Gate(0)), [2, 3])
    np.testing.assert_array_equal(window.narrow(line, [0], Gate(1, jnp.int32(0))), [0, 0, 2, 3, 0, 0])


def test_gates_of_one_program_differ_in_values_only():
    """Index and weights are leaves; the largest option is part of the structure, and so of jit's key."""
    one, other = Gate(2, jnp.int32(0)), Gate(2, jnp.int32(1))
    assert jax.tree.structure(one) == jax.tree.structure(other) != jax.tree.structure(Gate(1, jnp.int32(1)))
    assert Gate(1).is_static
    assert not one.is_static
    assert not Gate(1, weights=jnp.ones(2)).is_static
