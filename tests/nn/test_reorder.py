"""Reordering channels changes no function; and which orders there are."""

import jax
import numpy as np
import pytest

from helpers.engines import batches, engine_of
from helpers.nets import NETS, forms, in_float64, named, run, subnet_of, variables_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.algorithms import snet
from slimjax.errors import BadValue
from slimjax.nn import filters, reorder

FREE = [name for name in NETS if name != "s_shufflenet"]


def random_importance(net):
    rng = np.random.default_rng(2)
    return {group.name: rng.uniform(size=group.channels) for group in net.space.groups}


def ordered(net, importance):
    return reorder.order(net.records, net.space, importance)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", FREE)
def test_reordered_network_is_the_same_function(name, train, images):
    """In float64: equal logits, and gradients and statistics in the same new order."""
    with jax.enable_x64(True):
        net, variables, images = in_float64(name, images)
        importance = random_importance(net)
        before = run(net, variables, images, None, train)
        after = run(net, net.reorder(variables, importance), images, None, train)
        moved = sum((order != np.arange(len(order))).sum() for order in ordered(net, importance).values())
        assert moved > len(net.space), "the network was not reordered"
        np.testing.assert_allclose(after["logits"], before["logits"], rtol=0, atol=1e-10)
        assert_trees_close(after["grads"], net.reorder(before["grads"], importance), "float64")
        assert_trees_close(after["stats"], net.reorder(before["stats"], importance), "float64")


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v3_large"])
def test_subnets_of_a_reordered_network_run_alike_in_every_form(name, images):
    with jax.enable_x64(True):
        net, variables, images = in_float64(name, images)
        variables = net.reorder(variables, filters.norms(net.records, variables["params"]))
        results = [run(net, variables, images, w, True) for w in forms(net, subnet_of(net)).values()]
    for result in results[1:]:
        assert_trees_close(result, results[0], "float64")


def test_a_step_after_reordering_is_reordering_after_a_step():
    """Also what the optimiser and the moving average keep, private gammas, and statistics."""
    engine = engine_of(average_decay=0.9)
    algorithm = snet(engine, widths=(1.0,))
    importance = random_importance(engine.net)
    first, second = batches(2)
    step = lambda state, batch: algorithm.at(0).step(state, batch, algorithm.propose({}, 0))[0]  # noqa: E731
    fresh = lambda: step(algorithm.init(0), first)  # noqa: E731  # steps donate their state
    one = engine.net.reorder(step(fresh(), second), importance)
    other = step(engine.net.reorder(fresh(), importance), second)
    assert_trees_close(
        (one.trainable, one.batch_stats, one.opt_state, one.average),
        (other.trainable, other.batch_stats, other.opt_state, other.average),
    )
    with pytest.raises(AssertionError):
        assert_trees_close(one.opt_state, step(fresh(), second).opt_state)


def test_every_array_of_a_state_is_reordered_or_has_no_channels():
    """The new order and then its inverse give the old state to the bit."""
    engine = engine_of(average_decay=0.9)
    net, state = engine.net, snet(engine, widths=(0.5, 1.0)).init(0)
    order = ordered(net, random_importance(net))
    back = {name: np.argsort(permutation) for name, permutation in order.items()}
    moved = reorder.permute(net.records, order, state)
    assert_trees_equal(reorder.permute(net.records, back, moved), state)
    assert type(moved) is type(state)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), moved.params, state.params)
    assert all(jax.tree.leaves({name: part for name, part in changed.items() if name != "head"}))


def test_groups_that_meet_by_position_share_their_order():
    """Sums of what meets: 1 + 10 and 5 + 0, so 0 stays first; then 2 and 3 of the wider groups, among themselves."""
    net = named("resnet8", channels=(2, 4, 4))
    order = ordered(net, {"stage1": [1, 5], "stage2": [10, 0, 2, 3]})
    assert {name: permutation.tolist() for name, permutation in order.items()} == {
        "stage1": [0, 1],
        "stage2": [0, 1, 3, 2],
        "stage3": [0, 1, 3, 2],
    }


def test_equal_channels_stay_in_their_order():
    net = named("resnet8", channels=(4, 4, 4))
    assert ordered(net, {"stage1/block1": [1, 2, 1, 2]})["stage1/block1"].tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("group", ["stem", "stage1/unit1"])
def test_interleaved_channels_are_refused(group):
    net = NETS["s_shufflenet"]()
    channels = net.space.groups[net.space.index[group]].channels
    with pytest.raises(
        BadValue, match=f"group '{group}' cannot be reordered: the grouped convolution .* interl"
    ):
        net.reorder(variables_of(net), {group: np.ones(channels)})


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ({"stage9": [1]}, "no group 'stage9'. Groups of this network: stage1"),
        ({"stage1": [1, 2]}, r"group 'stage1': expected 4 finite numbers, got shape \(2,\)"),
        ({"stage1": [1, 2, np.nan, 4]}, "group 'stage1': expected 4 finite numbers"),
    ],
)
def test_importance_that_makes_no_sense_is_refused(importance, message):
    with pytest.raises(BadValue, match=message):
        ordered(named("resnet8", channels=(4, 4, 4)), importance)


def test_channels_of_slices_that_are_to_stay_do_not_leave_them():
    """Of 16 channels the first 4 and the first 10 stay sets: each part is sorted alone. So are tied groups together."""
    net = named("resnet8", channels=(16, 16, 16))
    space = net.space
    index = space.index["stage1/block1"]
    importance = {"stage1/block1": np.arange(16.0)}
    within = np.tile(space.largest, (2, 1))
    within[:, index] = [4, 10]
    found = reorder.order(net.records, space, importance, within)["stage1/block1"]
    assert found.tolist() == [3, 2, 1, 0, 9, 8, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10]
    # The streams of the three stages meet by position in padded shortcuts.
    within[0, space.index["stage1"]], within[0, space.index["stage3"]] = 3, 6
    joint = reorder.order(net.records, space, {"stage2": np.arange(16.0)}, within[:1])
    assert joint["stage1"].tolist() == joint["stage3"].tolist() == [2, 1, 0, 5, 4, 3, *range(15, 5, -1)]
