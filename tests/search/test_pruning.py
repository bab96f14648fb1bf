"""What pruning keeps: against counts by hand, and nested for rising cutoffs."""

import numpy as np
import pytest

from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search import pruning

SPACE = Space((Group("a", 4), Group("b", 8)), Rounding("truncate"), min_width=0.25)
NORMS = {"a": np.array([2.0, 0.2, 1.0, 0.0]), "b": np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.1, 9.0])}


def shares(subnet=(4, 7)):
    return pruning.relative(NORMS, SPACE, np.array(subnet))


def test_shares_are_of_the_largest_norm_within_the_subnet():
    found = shares()
    np.testing.assert_allclose(found["a"], [1.0, 0.1, 0.5, 0.0])
    np.testing.assert_allclose(found["b"], [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.02])  # the ninth's 9 is outside
    np.testing.assert_array_equal(
        pruning.relative({"a": np.zeros(4)}, SPACE, SPACE.largest)["a"], np.zeros(4)
    )


@pytest.mark.parametrize(("cutoff", "kept", "floored"), [(0.15, (2, 5), ()), (2.0, (1, 2), ("a", "b"))])
def test_channels_below_the_cutoff_go_but_no_group_is_emptied(cutoff, kept, floored):
    found = pruning.above(shares(), SPACE, np.array([4, 7]), cutoff)
    assert (tuple(found.subnet), found.floored) == (kept, floored)
    SPACE.check(found.subnet)


def test_a_group_keeps_the_next_larger_legal_number_of_channels():
    space = Space((Group("a", 32),), Rounding("multiple", 8), min_width=0.25)
    norms = {"a": np.where(np.arange(32) < 9, 1.0, 0.0)}
    assert pruning.above(norms, space, space.largest, 0.5).subnet.tolist() == [16]
    # A group without norms is not pruned.
    assert pruning.above({}, space, space.largest, 0.5).subnet.tolist() == [32]


def test_one_cutoff_for_all_groups_meets_a_budget():
    """Costs of a + b by hand: 11 of all, 10 without the 0, 9 without .02; both .1 go at once, and one fits again."""
    cost = lambda subnet: np.asarray(subnet).sum(-1)  # noqa: E731
    for budget, total in ((11, 11), (10.4, 10), (9, 9), (8, 8), (7.4, 7), (3, 3), (1, 3)):
        found = pruning.to_budget(shares(), SPACE, np.array([4, 7]), cost, budget)
        assert cost(found.subnet) == total, budget


def test_what_a_dear_channel_leaves_of_a_budget_is_filled_with_cheaper_ones():
    """A channel of a costs 5, of b 1. All but the 0 cost 22; 18 are in the budget: a's .1 goes, too, for 17 or less.

    At that cutoff b loses its .1 and its .02: 10 + 5 = 15. Both fit in again: 17. The next of a does not.
    """
    cost = lambda subnet: np.asarray(subnet) @ np.array([5, 1])  # noqa: E731
    found = pruning.to_budget(shares(), SPACE, np.array([4, 7]), cost, 18)
    assert found.subnet.tolist() == [2, 7]
    assert found.cutoff == pytest.approx(0.2)


def test_what_a_higher_cutoff_keeps_is_nested():
    found = [
        pruning.above(shares(), SPACE, np.array([4, 7]), cutoff).subnet for cutoff in np.linspace(0, 1, 21)
    ]
    assert (np.diff(found, axis=0) <= 0).all()


def test_histogram_counts_every_channel_once():
    found = pruning.histogram(shares(), (0.05, 0.5))
    # 0 and .02; then .1 .4 .2 .1; then 1 .5 1 .8 .6
    assert found == pytest.approx({"0-0.05": 2 / 11, "0.05-0.5": 4 / 11, "0.5-1": 5 / 11})


@pytest.mark.parametrize(("over", "rests"), [(1, True), (10, False)])
def test_a_channel_without_use_comes_to_rest_below_the_cutoff_unless_the_penalty_is_stronger(over, rests):
    """SGD with momentum 0.9 on the norm of one channel alone, beside one that stays at 1."""
    rate, cutoff = 0.1, 0.05
    strength = over * pruning.strongest({"a": np.array([1.0, 0.4])}, cutoff, rate)
    filter_, momentum, seen = np.full(4, 0.2), np.zeros(4), []  # norm 0.4
    for _ in range(200):
        momentum = 0.9 * momentum + strength * filter_ / np.linalg.norm(filter_)
        filter_ = filter_ - rate * momentum
        seen.append(np.linalg.norm(filter_))
    assert (max(seen[100:]) < cutoff) == rests


def test_the_strongest_penalty_follows_norms_and_rate():
    norms = {"a": np.array([0.1, 2.0]), "b": np.array([4.0])}
    assert pruning.strongest(norms, 0.05, 0.1) == pytest.approx(0.1 * 0.05 * 3 / 0.1)
    assert pruning.strongest(norms, 0.05, 0.0) == np.inf
