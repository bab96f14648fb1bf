"""Greedy slimming: a path that is known, targets, failures."""

import itertools

import numpy as np
import pytest

from slimjax.errors import RunError, UserError
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.greedy import greedy, ladder

SPACE = Space(
    (Group("a", 40), Group("b", 24), Group("c", 64), Group("image", 3, fixed=True)),
    Rounding("multiple", 4),
    0.2,
)
PRICES = np.array([5, 11, 3])
HARM = np.array([0.5, 0.9, 0.2])


def cost(subnets):
    return np.asarray(subnets) @ PRICES


def error(subnets):
    """Additive, and convex in each group: what the next step costs grows as the group narrows."""
    return (HARM * (8 / np.asarray(subnets, np.float64)) ** 6).sum(-1)


def drive(searcher, score=error):
    """Returns the last state and all that was asked for."""
    state, asked = searcher.init(), []
    while not searcher.done(state):
        asked.append(searcher.ask(state))
        state = searcher.tell(state, score(asked[-1]))
    return state, asked


def slim(targets, score=error, space=SPACE, **options):
    searcher = greedy(space, cost, targets, **options)
    return searcher.found(drive(searcher, score)[0])


def known_path(groups):
    """With such an error, greedy slimming takes all steps in the order of what each adds to the error."""
    ladders = [ladder(SPACE, group, groups)[::-1] for group in SPACE.groups]
    steps = [
        (HARM[g] * ((8 / after) ** 6 - (8 / before) ** 6), g, after)
        for g, counts in enumerate(ladders)
        for before, after in itertools.pairwise(counts)
    ]
    for g in range(3):  # convex, or the argument does not hold
        assert (np.diff([harm for harm, group, _ in steps if group == g]) > 0).all()
    path = [SPACE.largest.tolist()]
    for _, g, after in sorted(steps):
        path.append([*path[-1][:g], int(after), *path[-1][g + 1 :]])
    return path


def along(path, targets):
    """What targets get, the highest first, on a path: each a network after the one of the target before."""
    rest, found = iter(path[1:]), {}
    for target in targets:
        found[str(target)] = next(n for n in rest if cost(n) < target)
    return found


@pytest.mark.parametrize("groups", [4, 10, 12, 100])
def test_each_target_gets_the_first_network_of_the_known_path_that_is_below_it(groups):
    targets = [600, 500, 400, 300, 200, 150]
    expected = along(known_path(groups), targets)
    assert {name: n.tolist() for name, n in slim(targets, groups=groups).items()} == expected


def test_a_network_that_costs_just_the_target_is_slimmed_once_more():
    path = known_path(10)
    exact = int(cost(path[5]))
    assert slim([exact])[str(exact)].tolist() == path[6]


def test_one_pass_finds_what_a_pass_for_each_target_finds_where_no_step_passes_two():
    targets = [300, 600, 155.5, 450, 300]
    apart = {name: n.tolist() for target in targets for name, n in slim([target]).items()}
    together = {name: n.tolist() for name, n in slim(targets).items()}
    assert len({tuple(n) for n in apart.values()}) == 4
    assert together == apart
    assert list(together) == ["600", "450", "300", "155.5"]


TINY = Space((Group("a", 4), Group("b", 4)), Rounding("truncate"), 0.25)


def slim_tiny(*targets):
    """Costs 10 a + b, error (4 - a)^2 + 2 (4 - b)^2, steps of one channel.

    From (4, 4) the candidates' errors are 1 and 2, then 4 and 3, then 6 and 9, then 11 and 12, then, a being at
    its fewest, 17 and at last 27: (3, 4), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1), which cost 34, 33, 23, 13, 12, 11.
    """
    searcher = greedy(TINY, lambda n: np.asarray(n) @ [10, 1], targets, groups=4)
    state, _ = drive(searcher, lambda n: ((4 - n) ** 2 @ [1, 2]).astype(float))
    return {name: n.tolist() for name, n in searcher.found(state).items()}


def test_a_target_that_the_step_for_the_one_before_has_passed_gets_a_step_more():
    """The first step costs less than 40 and 35; the second less than 35 and 33.5."""
    assert slim_tiny(33.5, 40, 35) == {"40": [3, 4], "35": [3, 3], "33.5": [2, 3]}


def test_a_target_that_the_full_network_meets_gets_the_first_step():
    assert slim_tiny(1000) == {"1000": [3, 4]}
    assert slim_tiny(1000, 44) == {"1000": [3, 4], "44": [3, 3]}


def test_targets_that_are_left_when_nothing_can_be_narrowed_get_the_last_network():
    assert slim_tiny(12.5, 11.75, 11.5, 11.25) == {
        "12.5": [1, 2],
        "11.75": [1, 1],
        "11.5": [1, 1],
        "11.25": [1, 1],
    }


def test_a_target_that_was_reached_stays_so_where_the_cost_rises_again():
    """As a measured latency may."""

    def bumpy(subnets):
        n = np.asarray(subnets)
        return cost(n) + 60 * (n[..., 0] == 28)  # above what 32 costs

    first = SPACE.from_channels({"a": 32})
    searcher = greedy(SPACE, bumpy, [cost(first) + 1, 500])
    state, _ = drive(searcher, lambda subnets: subnets[:, 0])
    assert [n.tolist() for n in searcher.found(state).values()] == [first.tolist(), [8, 24, 64]]


def test_score_of_a_found_network_is_the_one_that_was_told():
    state, _ = drive(greedy(SPACE, cost, [10_000, 400, 200]))
    np.testing.assert_array_equal(state.scores, error(state.networks))


def test_equal_scores_narrow_the_first_group():
    assert slim([500], lambda subnets: np.zeros(len(subnets)))["500"].tolist() == [8, 24, 64]


def test_a_group_at_its_fewest_channels_is_not_asked_for():
    least = int(cost(SPACE.lowest))
    state, asked = drive(greedy(SPACE, cost, [least + 0.5]), lambda subnets: np.zeros(len(subnets)))
    assert state.subnet.tolist() == SPACE.lowest.tolist()
    sizes = [len(ladder(SPACE, group, 10)) - 1 for group in SPACE.groups]
    assert [len(rows) for rows in asked] == [3] * sizes[0] + [2] * sizes[1] + [1] * sizes[2]


@pytest.mark.parametrize(
    ("channels", "divisor", "groups", "expected"),
    [
        (100, 8, 10, [24, 32, 40, 48, 64, 72, 80, 88, 100]),
        (120, 1, 12, [24, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]),  # 24 is the nearest to 20
        (16, 8, 10, [8, 16]),
        (64, 8, 1, [16, 64]),
    ],
)
def test_steps_are_equal_shares_rounded_to_legal_counts(channels, divisor, groups, expected):
    space = Space((Group("g", channels),), Rounding("multiple", divisor), 0.2)
    assert ladder(space, space.groups[0], groups).tolist() == expected


def test_a_failed_candidate_is_not_chosen():
    def score(subnets):
        return np.where(subnets[:, 0] < 40, np.nan, error(subnets))

    assert slim([400], score)["400"][0] == 40


def test_a_round_of_failures_ends_the_search():
    with pytest.raises(RunError, match=r"none of the 3 candidates after .*'a': 40.* has a score"):
        slim([400], lambda subnets: np.full(len(subnets), np.inf))


@pytest.mark.parametrize("targets", [[], [np.nan], [400, np.inf]])
def test_targets_that_are_none_are_refused(targets):
    with pytest.raises(UserError, match="targets: expected one or more costs"):
        greedy(SPACE, cost, targets)


@pytest.mark.parametrize("less", [0, 1])
def test_a_target_that_the_narrowest_network_is_not_below_is_refused_with_what_is_reachable(less):
    least, most = int(cost(SPACE.lowest)), int(cost(SPACE.largest))
    with pytest.raises(UserError, match=f"above {least}, got {least - less}: .* cost {least} to {most}"):
        greedy(SPACE, cost, [400, least - less])


def test_a_network_that_cannot_be_narrowed_is_refused():
    with pytest.raises(UserError, match="targets: no channel group of this network can be narrowed"):
        greedy(Space((Group("a", 4),), Rounding("truncate"), 1.0), lambda n: np.sum(n, -1), [5])


@pytest.mark.parametrize("groups", [0, 2.5, True])
def test_groups_that_are_no_count_are_refused(groups):
    with pytest.raises(UserError, match="groups: expected a whole number of at least 1"):
        greedy(SPACE, cost, [400], groups=groups)
