"""Pareto fronts, against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimjax.search import pareto

# Few distinct values, so that ties and equal points occur.
POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12).map(
    lambda rows: np.array(rows, np.float64)
)


def dominated(points, i):
    return any((q <= points[i]).all() and (q < points[i]).any() for q in points)


@settings(max_examples=200, deadline=None)
@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    assert pareto.front(points).tolist() == [not dominated(points, i) for i in range(len(points))]


@settings(max_examples=200, deadline=None)
@given(POINTS)
def test_peel_takes_front_after_front(points):
    ranks, left, number = pareto.peel(points), np.arange(len(points)), 0
    while len(left):
        first = pareto.front(points[left])
        assert (ranks[left[first]] == number).all()
        left, number = left[~first], number + 1


def test_front_keeps_all_equal_points():
    assert pareto.front(np.array([[1.0, 2], [1, 2], [1, 3], [2, 1]])).tolist() == [True, True, False, True]


def test_an_extended_front_goes_on_in_the_dearer_part_of_the_next():
    """Front: a, b. Behind it c, d, e, of which only e is dearer than b; behind that f, g: g is dearer than e."""
    a, b, c, d, e, f, g = (
        (0.9, 0.1),
        (0.5, 0.4),
        (0.95, 0.2),
        (0.92, 0.35),
        (0.6, 0.7),
        (0.93, 0.5),
        (0.7, 0.95),
    )
    points = np.array([a, b, c, d, e, f, g])
    assert pareto.extended(points, 0.4).tolist() == [True, True, False, False, False, False, False]
    assert pareto.extended(points, 0.7).tolist() == [True, True, False, False, True, False, False]
    assert pareto.extended(points, 0.9).tolist() == [True, True, False, False, True, False, True]
    assert pareto.extended(points[:4], 0.9).tolist() == [True, True, False, False]


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_hypervolume_is_the_dominated_share_of_a_grid(points):
    """Also with points beyond the reference, (4, 3)."""
    cells = np.stack(np.meshgrid(np.arange(4) + 0.5, np.arange(3) + 0.5), axis=-1).reshape(-1, 1, 2)
    expected = (points[None] <= cells).all(axis=-1).any(axis=1).sum()
    assert pareto.hypervolume(points, np.array([4.0, 3.0])) == pytest.approx(expected)


def test_hypervolume_of_one_point():
    assert pareto.hypervolume(np.array([[0.25, 0.5]]), np.array([1.0, 1.0])) == pytest.approx(0.375)


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_area_is_the_mean_height_of_the_staircase(points):
    points = np.concatenate([points, [[7.0, 1.0]]])
    grid = np.linspace(1, 4, 3000, endpoint=False) + 0.0005
    heights = np.where(points[:, 1] <= grid[:, None], points[:, 0], np.inf).min(axis=1)
    assert pareto.area(points, 1.0, 4.0) == pytest.approx(np.mean(heights))


def test_area_needs_a_point_where_it_begins():
    with pytest.raises(ValueError, match=r"cost 0.5 or less; the cheapest costs 0.6"):
        pareto.area(np.array([[1.0, 0.6]]), 0.5, 1.0)


def test_area_refuses_an_empty_range():
    with pytest.raises(ValueError, match="high > low"):
        pareto.area(np.array([[1.0, 0.1]]), 0.5, 0.5)


def test_failed_trials_are_refused():
    with pytest.raises(ValueError, match="leave failed trials out"):
        pareto.front(np.array([[np.nan, 1.0]]))
