"""Rungs: least expected cost, and always a cover."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimjax.step import rungs


def cost(subnets):
    """A chain of two layers over three groups."""
    subnets = np.asarray(subnets, np.float64)
    return subnets[..., 0] * subnets[..., 1] + subnets[..., 1] * subnets[..., 2]


def expected(chosen, draws):
    return np.mean([cost(chosen[rungs.cover(chosen, draw)]) for draw in draws])


def uniform(count, seed=0):
    widths = np.random.default_rng(seed).uniform(0.25, 1, count)
    return np.outer(widths, [16, 32, 64]).astype(np.int32)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_choose_finds_the_optimum_of_uniform_widths(count):
    draws = uniform(30)
    points = np.unique(draws, axis=0)
    # Every set of rungs must hold the largest point; the others are free.
    best = min(
        expected(np.array(sorted([*rest, points[-1].tolist()], key=cost), np.int32), draws)
        for rest in itertools.combinations(points[:-1].tolist(), count - 1)
    )
    assert expected(rungs.choose(draws, cost, count), draws) == pytest.approx(best)


def test_more_rungs_cost_less_and_fourteen_waste_under_a_tenth():
    draws = uniform(4000)
    waste = [expected(rungs.choose(draws, cost, k), draws) / cost(draws).mean() for k in (1, 2, 4, 8, 14)]
    assert waste == sorted(waste, reverse=True)
    assert waste[-1] < 1.1


def test_enough_rungs_are_the_subnets_themselves():
    draws = uniform(50)
    chosen = rungs.choose(draws, cost, 1000)
    assert expected(chosen, draws) == cost(draws).mean()
    assert len(chosen) == len(np.unique(draws, axis=0))


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(1, 20)),
    st.integers(1, 9),
)
def test_every_draw_is_covered_by_a_rung(draws, count):
    chosen = rungs.choose(draws, cost, count)
    assert len(chosen) <= count
    assert all(rungs.cover(chosen, draw) is not None for draw in draws)


def test_many_subnets_are_merged_and_still_covered():
    draws = np.random.default_rng(1).integers(1, 60, (2000, 3)).astype(np.int32)
    chosen = rungs.choose(draws, cost, 5)
    assert all(rungs.cover(chosen, draw) is not None for draw in draws)


def test_cover_says_where_there_is_none():
    assert rungs.cover(np.array([[4, 4, 4]], np.int32), np.array([5, 1, 1])) is None


def layerwise(count, seed, spread=0.75):
    """Widths of every group on their own, around a common one."""
    generator = np.random.default_rng(seed)
    widths = generator.uniform(0.25, 1, (count, 1)) + generator.uniform(-spread, spread, (count, 3))
    return (np.clip(widths, 0.25, 1) * [16, 32, 64]).astype(np.int32)


def clusters(seed=0):
    """Nine thin networks of three kinds, of about equal costs: their order of cost says nothing."""
    kinds = np.array([[20, 2, 2], [2, 2, 20], [4, 6, 4]])
    return (kinds[np.arange(9) % 3] + np.random.default_rng(seed).integers(0, 2, (9, 3))).astype(np.int32)


def test_subnets_of_several_kinds_get_a_rung_each():
    """Every way to divide nine subnets among three rungs is tried."""
    draws = clusters()
    best = min(
        expected(np.array(sorted(kinds, key=cost)), draws)
        for labels in itertools.product(range(3), repeat=9)
        if len(set(labels)) == 3
        for kinds in [[draws[np.array(labels) == k].max(0).tolist() for k in range(3)]]
    )
    assert expected(rungs.choose(draws, cost, 3), draws) == pytest.approx(best)
    assert expected(rungs._partition(*rungs._sorted(draws, cost), cost, 3), draws) > 1.1 * best


@pytest.mark.parametrize("spread", [0.1, 0.75])
def test_layerwise_widths_cost_no_more_than_cut_in_order_of_cost(spread):
    draws = layerwise(600, 1, spread)
    points = rungs._merge(*rungs._sorted(draws, cost))
    for count in (3, 8, 14):
        assert expected(rungs.choose(draws, cost, count), draws) <= expected(
            rungs._partition(*points, cost, count), draws
        )


def test_rungs_are_distinct_rise_in_cost_and_serve_somebody():
    draws = layerwise(600, 2)
    chosen = rungs.choose(draws, cost, 14)
    assert (np.diff(cost(chosen)) >= 0).all()
    assert {rungs.cover(chosen, draw) for draw in draws} == set(range(len(chosen)))


def test_choice_depends_on_nothing_but_the_draws():
    draws = layerwise(400, 3)
    again = rungs.choose(np.random.default_rng(0).permutation(draws), cost, 8)
    np.testing.assert_array_equal(again, rungs.choose(draws, cost, 8))


def test_expected_cost_is_that_of_the_cheapest_cover():
    found = np.array([[2, 2, 2], [4, 4, 4]], np.int32)
    draws, weights = np.array([[1, 2, 1], [3, 1, 1]]), np.array([3, 1])
    assert rungs.expected_cost(found, draws, weights, cost) == (3 * cost(found[0]) + cost(found[1])) / 4
    assert rungs.expected_cost(found[:1], draws, weights, cost) == np.inf


def test_exchanges_never_cost_more():
    for seed in range(5):
        draws, weights = rungs._sorted(layerwise(200, seed), cost)
        start = rungs._partition(*rungs._merge(draws, weights), cost, 6)
        before, after = (
            rungs.expected_cost(found, draws, weights, cost)
            for found in (start, rungs._exchange(start, draws, weights, cost))
        )
        assert after < before


def test_rungs_that_serve_nobody_are_dropped():
    twice, draws = np.full((2, 3), 4, np.int32), np.array([[3, 3, 3]], np.int32)
    np.testing.assert_array_equal(rungs._exchange(twice, draws, np.ones(1), cost), draws)
