"""Elasticity-scaling: never above its target, and what the words of the reference say, one iteration at a time."""

import numpy as np
import pytest

from slimjax.errors import BadValue
from slimjax.nn.choices import Choice, When
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.elastic import elastic

EVERY_COUNT = Rounding("truncate")
DEPTH = Choice("s2/depth", ("1", "2"))
OPERATOR = Choice("s3/operator", ("narrow", "wide"), ordered=False)
UNDER = {
    "s2/late": ((When(DEPTH, (1,)),),),
    "s3/narrow": ((When(OPERATOR, (0,)),),),
    "s3/wide": ((When(OPERATOR, (1,)),),),
}
GROUPS = (
    Group("s1", 64),
    Group("s1/inner", 130),
    Group("s2/early", 200),
    Group("s2/late", 190),
    Group("s3/narrow", 300),
    Group("s3/wide", 600),
    Group("s4", 500),
)
FINE = Space(GROUPS, EVERY_COUNT, 0.5, choices=(DEPTH, OPERATOR), under=UNDER)
COARSE = Space(GROUPS, Rounding("multiple", 8), 0.25)


def cost(space):
    """Linear in the channels of what a subnet has, and dear where a network is dear: at its beginning."""
    prices = np.array([400.3, 210.7, 90.1, 80.2, 40.9, 30.3, 11.7, *[0] * len(space.choices)])
    return lambda subnets: 1000 + (np.asarray(subnets) * space.exists(subnets) * prices).sum(-1)


def ends(space, subnet):
    """The subnet with its fewest and its most channels."""
    moves = space.exists(subnet) & (np.arange(len(space)) < len(GROUPS))
    return [np.where(moves, end, subnet) for end in (space.lowest, space.largest)]


def cases(space, count, seed=0):
    """Random subnets, and for each a target between what its ends cost."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.choice(space.legal(axis), count) for axis in space.axes], -1).astype(np.int32)
    rows = space.canonical(rows)
    for row in rows:
        least, most = cost(space)(np.stack(ends(space, row)))
        yield row, float(rng.uniform(least, most))


def by_the_words(space, price, subnet, target):
    """One iteration after the other, one group after the other."""
    names = [group.name for group in space.groups]
    there = [name for name in names if name in space.to_channels(subnet)]
    stage = {name: int(name[1]) for name in names}
    most = {group.name: group.channels for group in space.groups}
    options = list(subnet[len(names) :])
    channels = dict(zip(names, subnet.tolist(), strict=False))

    def price_of(channels):
        return float(price(np.array([*channels.values(), *options])))

    def iterations(channels, start, sign):
        """All states but the first, until every group is clipped."""
        considered = [name for name in there if stage[name] >= start]
        narrowest = min((channels[name] for name in considered), default=1)
        ratio = {name: round(channels[name] / narrowest) for name in considered}
        while True:
            moved = dict(channels)
            for name in considered:
                moved[name] = min(max(channels[name] + sign * ratio[name], most[name] // 2), most[name])
            if moved == channels:
                return
            channels = moved
            yield channels

    def grown(channels, start):
        for state in iterations(channels, start, 1):
            if price_of(state) > target:
                break
            channels = state
        return channels

    if price_of(channels) > target:
        for state in iterations(channels, 1, -1):
            channels = state
            if price_of(channels) < target:
                break
    else:
        channels = grown(channels, 1)
    for start in range(2, max(stage.values()) + 1):
        channels = grown(channels, start)
    return np.array([*channels.values(), *options])


@pytest.mark.parametrize("space", [FINE, COARSE], ids=["fine", "coarse"])
def test_result_never_costs_more_than_the_target(space):
    for row, target in cases(space, 200):
        assert cost(space)(elastic(space, cost(space), row, target, space.stages)) <= target


def test_result_is_that_of_the_iterations_one_by_one():
    shrinks = set()
    for row, target in cases(FINE, 100):
        shrinks.add(cost(FINE)(row) > target)
        found = elastic(FINE, cost(FINE), row, target, FINE.stages)
        np.testing.assert_array_equal(found, by_the_words(FINE, cost(FINE), row, target))
    assert shrinks == {False, True}


def test_all_stages_shrink_in_proportion_until_the_cost_is_below():
    space = Space((Group("a", 100), Group("b", 290)), EVERY_COUNT, 0.1)
    total = lambda subnets: np.asarray(subnets).sum(-1)  # noqa: E731
    found = elastic(space, total, space.largest, 362, dict.fromkeys(("a", "b"), 1))
    # 4 channels an iteration: 390 - 7 * 4 is 362, which is not below it; so 8 iterations of 1 and 3 channels.
    assert found.tolist() == [92, 266]


def test_growth_keeps_the_last_state_within_the_target():
    space = Space((Group("a", 100), Group("b", 300)), EVERY_COUNT, 0.1)
    total = lambda subnets: np.asarray(subnets).sum(-1)  # noqa: E731
    start = np.array([20, 60])
    one_stage = elastic(space, total, start, 111, dict.fromkeys(("a", "b"), 1))
    assert one_stage.tolist() == [27, 81]  # 108; an iteration more is 112
    assert elastic(space, total, start, 112, {"a": 1, "b": 1}).tolist() == [28, 84]  # just as much is within
    assert elastic(space, total, start, 111, {"a": 1, "b": 2}).tolist() == [
        27,
        84,
    ]  # the second pass fills up


def test_each_further_pass_comes_nearer_to_the_target():
    errors = []
    for row, target in cases(FINE, 100):
        at_most = [{name: min(n, last) for name, n in FINE.stages.items()} for last in (1, 2, 4)]
        found = [elastic(FINE, cost(FINE), row, target, stages) for stages in at_most]
        errors.append([1 - cost(FINE)(subnet) / target for subnet in found])
    one, two, four = np.array(errors).T
    assert (two <= one).all()
    assert (four <= one).all()
    assert four.mean() < one.mean() / 20
    assert four.mean() < 1e-3


def test_a_cost_that_falls_again_after_the_target_is_not_followed():
    space = Space((Group("a", 100),), EVERY_COUNT, 0.1)
    bump = lambda subnets: np.where(np.asarray(subnets)[..., 0] == 60, 1000, np.asarray(subnets)[..., 0])  # noqa: E731
    assert elastic(space, bump, np.array([50]), 90, {"a": 1}).tolist() == [59]


def test_a_subnet_that_is_cheap_at_its_widest_is_fully_grown():
    for row, _ in cases(FINE, 5):
        widest = ends(FINE, row)[1]
        np.testing.assert_array_equal(elastic(FINE, cost(FINE), row, 1e9, FINE.stages), widest)


def test_a_target_that_the_fewest_channels_just_meet_is_met():
    for row, _ in cases(FINE, 5):
        narrowest = ends(FINE, row)[0]
        target = float(cost(FINE)(narrowest))
        np.testing.assert_array_equal(elastic(FINE, cost(FINE), row, target, FINE.stages), narrowest)


def test_counts_between_legal_ones_wait_at_the_last_that_was_passed():
    space = Space((Group("a", 32), Group("b", 64)), Rounding("multiple", 8), 0.25)
    seen = []

    def total(subnets):
        seen.append(np.asarray(subnets))
        return seen[-1].sum(-1)

    elastic(space, total, np.array([8, 16]), 96, {"a": 1, "b": 1})
    (states,) = [rows for rows in seen if rows.ndim > 1]  # by 1 and 2 channels
    assert states[:9, 0].tolist() == [8, 8, 8, 8, 8, 8, 8, 8, 16]
    assert states[:9, 1].tolist() == [16, 16, 16, 16, 24, 24, 24, 24, 32]
    seen.clear()
    elastic(space, total, space.largest, 25, {"a": 1, "b": 1})
    (states,) = [rows for rows in seen if rows.ndim > 1]
    assert states[:9, 0].tolist() == [32, 32, 32, 32, 32, 32, 32, 32, 24]
    assert states[:9, 1].tolist() == [64, 64, 64, 64, 56, 56, 56, 56, 48]


def test_results_are_legal_where_counts_are_coarse():
    for row, target in cases(COARSE, 50):
        found = elastic(COARSE, cost(COARSE), row, target, COARSE.stages)
        np.testing.assert_array_equal(COARSE.check(found), found)


def test_choices_and_groups_that_are_not_there_stay():
    for row, target in cases(FINE, 50):
        found = elastic(FINE, cost(FINE), row, target, FINE.stages)
        away = ~FINE.exists(row)
        assert away.any()
        np.testing.assert_array_equal(found[away], row[away])
        np.testing.assert_array_equal(found[len(GROUPS) :], row[len(GROUPS) :])


def test_groups_without_a_stage_stay():
    stages = {name: stage for name, stage in FINE.stages.items() if stage != 2}
    for row, _ in cases(FINE, 20):
        found = elastic(FINE, cost(FINE), row, 1e9, stages)
        np.testing.assert_array_equal(found[2:4], row[2:4])
        assert found[0] == 64
    assert elastic(FINE, cost(FINE), row, 1e9, {}).tolist() == row.tolist()


@pytest.mark.parametrize(
    ("subnet", "target", "message"),
    [
        (None, 1.0, "target: expected a cost of at least {least:.10g}, got 1: this network's subnets cost"),
        (None, np.nan, "target: expected a cost of at least {least:.10g}, got nan"),
        ([63, 1, 200, 190, 150, 600, 500, 1, 1], 1e9, "subnet: illegal channel counts: s1/inner: 1 "),
    ],
)
def test_what_cannot_be_scaled_is_refused(subnet, target, message):
    largest = FINE.canonical(FINE.largest)
    least = cost(FINE)(ends(FINE, largest)[0])
    with pytest.raises(BadValue) as refused:
        elastic(FINE, cost(FINE), largest if subnet is None else subnet, target, FINE.stages)
    assert message.format(least=least) in str(refused.value)


def test_a_pass_is_costed_in_one_call():
    calls = []

    def counted(subnets):
        calls.append(np.shape(subnets))
        return cost(FINE)(subnets)

    row, target = next(cases(FINE, 1))
    elastic(FINE, counted, row, target, FINE.stages)
    assert len([shape for shape in calls if len(shape) == 2]) == 4
    assert len(calls) == 4 + 3  # the ends, and what it costs at first


def test_stages_are_what_names_begin_with_in_the_order_of_the_network():
    space = Space((Group("stem", 8), Group("s2/block1", 8), Group("s1", 8), Group("s2/block2/x", 8)))
    assert space.stages == {"stem": 1, "s2/block1": 2, "s1": 3, "s2/block2/x": 2}
