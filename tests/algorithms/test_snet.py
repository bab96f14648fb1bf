"""S-Nets with a tail that is never narrowed: one norm there for all switches, as in the released S-MobileNetV2."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from helpers.engines import batches, engine_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.algorithms import snet
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding
from slimjax.step.state import COMMON
from slimjax.supernet import Supernet


class Tailed(nn.Module):
    """Two convolutions, of which the second is never narrowed."""

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(Group("body", 4), name="stem")(FeatureMap.of(images, widths))
        x = BatchNorm(name="norm")(x, train).map(jax.nn.relu)
        x = Conv(Group("tail", 6, fixed=True), kernel_size=1, name="tail")(x)
        x = BatchNorm(name="tail_norm")(x, train).map(jax.nn.relu)
        return PoolingHead(5, name="head")(x)


NET = Supernet(Tailed(), (8, 8, 3), Rounding("truncate"), 0.5)


def make(**options):
    """Two switches, plain gradient descent at a rate of 1."""
    engine = engine_of(lr=1.0, decay=0.0, momentum=0.0)
    return snet(dataclasses.replace(engine, net=NET), widths=(0.5, 1.0), **options)


def step(algorithm, state, batch):
    return algorithm.at(0).step(state, batch, algorithm.propose({}, 0))[0]


@pytest.fixture(scope="module")
def batch():
    return next(batches(1))


@pytest.fixture(scope="module")
def start():
    return jax.tree.map(np.asarray, make().init(0))


def tail_of_switch(start, batch, width):
    """One switch alone: the gradient of the tail's gammas and betas, and the means and variances of its batch there."""
    images, labels = batch["image"] / np.float32(255), np.eye(5)[batch["label"]]

    def loss(tail):
        variables = start.variables("w1.00", "w1.00")
        variables["affine"] = {**variables["affine"], "tail_norm": tail}
        widths = NET.space.sliced(NET.space.uniform(width))
        logits, new = NET.model.apply(variables, images, widths, train=True, mutable=["batch_stats"])
        return -(labels * jax.nn.log_softmax(logits)).sum(-1).mean(), new["batch_stats"]["tail_norm"]

    return jax.grad(loss, has_aux=True)(start.affine[COMMON]["tail_norm"])


def test_tail_norm_is_one_for_all_switches(start):
    assert set(start.affine) == set(start.batch_stats) == {"w0.50", "w1.00", COMMON}
    assert set(start.affine["w0.50"]) == set(start.batch_stats["w1.00"]) == {"norm"}
    assert set(start.affine[COMMON]) == set(start.batch_stats[COMMON]) == {"tail_norm"}


def test_tail_norm_learns_from_the_sum_of_all_switches(start, batch):
    after = step(make(), make().init(0), batch).affine[COMMON]["tail_norm"]
    wide, narrow = (tail_of_switch(start, batch, width)[0] for width in (1.0, 0.5))
    want = jax.tree.map(lambda w, a, b: w - (a + b), start.affine[COMMON]["tail_norm"], wide, narrow)
    assert_trees_close(after, want)


def test_tail_statistics_are_written_by_the_switches_in_turn(start, batch):
    """The widest first: .9 (.9 s + .1 wide) + .1 narrow, from means of 0 and variances of 1."""
    after = step(make(), make().init(0), batch).batch_stats[COMMON]["tail_norm"]
    wide, narrow = (tail_of_switch(start, batch, width)[1] for width in (1.0, 0.5))
    want = jax.tree.map(
        lambda s, a, b: 0.81 * s + 0.09 * a + 0.1 * b, {"mean": np.zeros(6), "var": np.ones(6)}, wide, narrow
    )
    assert_trees_close(after, want)


def test_a_switch_is_evaluated_with_its_own_norms_and_the_common_one(batch):
    state = step(make(), make().init(0), batch)
    variables = state.variables("w0.50", "w0.50")
    assert_trees_equal(variables["affine"]["norm"], state.affine["w0.50"]["norm"])
    assert_trees_equal(variables["affine"]["tail_norm"], state.affine[COMMON]["tail_norm"])
    assert_trees_equal(variables["batch_stats"]["tail_norm"], state.batch_stats[COMMON]["tail_norm"])


def test_private_tail_gives_every_switch_all_norms():
    state = make(private_tail=True).init(0)
    assert set(state.affine) == set(state.batch_stats) == {"w0.50", "w1.00"}
    assert set(state.affine["w0.50"]) == {"norm", "tail_norm"}


def test_networks_without_a_fixed_tail_have_nothing_in_common():
    assert set(snet(engine_of(), widths=(0.5, 1.0)).init(0).affine) == {"w0.50", "w1.00"}
