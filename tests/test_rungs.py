"""Rungs: least expected cost, and always a cover."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimjax import rungs


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


@settings(max_examples=50)
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
