"""Coarse-to-fine selection: its grid, its skeletons, its variations."""

import numpy as np
import pytest

from slimjax.errors import UserError
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.coarse_to_fine import coarse_to_fine

TINY = Space((Group("a", 4), Group("b", 4)), Rounding("truncate"), 0.25)
LARGE = Space(tuple(Group(f"g{i}", 64) for i in range(7)), Rounding("truncate"), 0.25)


def price(subnets):
    return np.asarray(subnets) @ [10, 1]


def cost(subnets):
    """A chain of convolutions."""
    n = np.asarray(subnets, np.int64)
    return 3 * n[..., 0] + (n[..., 1:] * n[..., :-1]).sum(-1)


def harm(subnets):
    return (2 * (4 - subnets[:, 0]) ** 2 + (4 - subnets[:, 1]) ** 2).astype(float)


def error(subnets):
    """Groups matter differently."""
    return ((1 + np.arange(7) % 3) / np.asarray(subnets, np.float64)).sum(-1)


def drive(searcher, score=error):
    """Returns what is found and all that was asked for."""
    state, asked = searcher.init(), []
    while not searcher.done(state):
        asked.append(searcher.ask(state))
        state = searcher.tell(state, score(asked[-1]))
    assert searcher.ask(state).shape == (0, asked[0].shape[1])
    return searcher.found(state), asked


def as_sets(rounds):
    return [{tuple(row) for row in rows.tolist()} for rows in rounds]


def test_a_search_by_hand():
    """Costs 10 a + b, error 2 (4 - a)^2 + (4 - b)^2, widths 1/4 and 1 for each of two blocks.

    The grid (1, 1), (1, 4), (4, 1), (4, 4) costs 11, 14, 41, 44, of which the last is above 42; its errors are
    27, 18, 9. So the skeletons are (4, 1) within 42 and (1, 4) within 25. Variations move each group by one channel
    at most: around (4, 1) three fit and are new, of the errors 11, 6 and 4; around (1, 4) three, of 19, 9 and 8.
    """
    found, asked = drive(coarse_to_fine(TINY, price, [42, 25], trials=11), harm)
    assert asked[0].tolist() == [[1, 1], [1, 4], [4, 1]]
    assert as_sets(asked[1:]) == [{(3, 1), (3, 2), (4, 2)}, {(1, 3), (2, 3), (2, 4)}]
    assert {name: subnet.tolist() for name, subnet in found.items()} == {"42": [4, 2], "25": [2, 4]}


def test_a_failed_subnet_of_the_grid_is_no_skeleton():
    def score(subnets):
        return np.where((subnets == [4, 1]).all(axis=1), np.nan, harm(subnets))

    _, asked = drive(coarse_to_fine(TINY, price, [42], trials=9), score)
    assert as_sets(asked)[1] == {(1, 3), (2, 3), (2, 4)}, "around (1, 4)"


def test_a_budget_without_a_skeleton_gets_nothing_and_the_others_theirs():
    """Within 12 there is only (1, 1), which fails."""

    def score(subnets):
        return np.where(subnets.sum(axis=1) == 2, np.nan, harm(subnets))

    found, asked = drive(coarse_to_fine(TINY, price, [12, 42], trials=11), score)
    assert set(found) == {"42"}
    assert as_sets(asked[1:]) == [{(3, 1), (3, 2), (4, 2)}]


@pytest.mark.parametrize(("blocks", "levels"), [(1, 30), (2, 5), (3, 3), (7, 1)])
def test_the_grid_has_every_combination_of_its_widths_in_blocks(blocks, levels):
    """As many levels as fit into 30 subnets; one more subnet, the narrowest, is among them."""
    searcher = coarse_to_fine(LARGE, cost, [cost(LARGE.largest)], trials=60, blocks=blocks)
    grid = searcher.ask(searcher.init())
    block = np.arange(7) * blocks // 7
    assert all(len(set(row[block == b].tolist())) == 1 for row in grid for b in range(blocks))
    assert [len(set(grid[:, i].tolist())) for i in range(7)] == [levels] * 7
    assert len(grid) == levels**blocks
    assert (np.diff(cost(grid)) >= 0).all()


def test_the_grid_leaves_out_what_no_budget_allows():
    budgets = [0.2 * cost(LARGE.largest), 0.4 * cost(LARGE.largest)]
    whole = coarse_to_fine(LARGE, cost, [cost(LARGE.largest)], trials=100)
    whole = whole.ask(whole.init())
    searcher = coarse_to_fine(LARGE, cost, budgets, trials=100)
    np.testing.assert_array_equal(searcher.ask(searcher.init()), whole[cost(whole) <= budgets[1]])


@pytest.mark.parametrize("share", [0.07, 0.1, 0.5, 1.0])
def test_variations_are_legal_near_their_skeleton_and_within_the_budget(share):
    """At .07 the grid has little but the narrowest: 1/16 is the least."""
    budget = share * cost(LARGE.largest)
    _, asked = drive(coarse_to_fine(LARGE, cost, [budget], trials=100, reach=0.1))
    grid, variations = asked
    skeleton = grid[error(grid).argmin()]
    assert len(variations) == 100 - len(grid)
    assert all(LARGE.check(row) is not None for row in variations)
    assert (cost(variations) <= budget).all()
    assert np.abs(variations - skeleton).max() <= 2 * 5, "a tenth of 49 counts, twice"
    if share >= 0.5:
        assert np.abs(variations - skeleton).max() > 5


def test_with_a_probability_of_0_all_groups_move_together():
    """The best of the grid is the full network."""
    options = {"blocks": 1, "probability": 0.0, "reach": 0.3}
    _, (_, variations) = drive(coarse_to_fine(LARGE, cost, [cost(LARGE.largest)], trials=10, **options))
    assert len(variations) == 5
    assert (variations == variations[:, :1]).all()
    assert len(np.unique(variations)) == 5


def test_variations_get_better_than_the_grid():
    budgets = [share * cost(LARGE.largest) for share in (0.25, 0.5)]
    found, asked = drive(coarse_to_fine(LARGE, cost, budgets, trials=200))
    grid = asked[0]
    for budget, subnet in zip(budgets, found.values(), strict=True):
        assert error(subnet) < error(grid[cost(grid) <= budget]).min()


def path(seed):
    return np.concatenate(drive(coarse_to_fine(LARGE, cost, [8000, 4000], trials=80, seed=seed))[1])


def test_a_seed_fixes_the_path_and_another_seed_takes_another():
    np.testing.assert_array_equal(path(1), path(1))
    assert path(1).shape != path(2).shape or (path(1) != path(2)).any()


@pytest.mark.parametrize("trials", [1, 2, 3, 30])
def test_no_more_is_asked_for_than_there_are_trials(trials):
    found, asked = drive(coarse_to_fine(LARGE, cost, [8000, 4000], trials=trials))
    assert 1 <= sum(map(len, asked)) <= trials
    assert set(found) == {"8000", "4000"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": []}, "budgets: expected one or more costs"),
        ({"budgets": [8000, 1]}, "budgets: expected a cost of at least 1584, got 1"),
        ({"trials": 0}, "trials: expected a whole number of at least 1, got 0"),
        ({"coarse": 1.5}, "coarse: expected a number from 0 to 1, got 1.5"),
        ({"blocks": 0}, "blocks: expected a whole number of at least 1, got 0"),
        ({"probability": -0.1}, "probability: expected a number from 0 to 1, got -0.1"),
        ({"reach": 2}, "reach: expected a number from 0 to 1, got 2"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        coarse_to_fine(LARGE, cost, **{"budgets": [8000], **options})
