"""A penalty on what is trained: what it adds to a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.engines import batches, engine_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.nn import filters
from slimjax.step.composed import ComposedStep
from slimjax.step.slots import Slot


def stepped(engine, penalty=None, **knobs):
    """The state before and after one step of plain gradient descent at a rate of 1, and the metrics."""
    largest = tuple(engine.net.space.largest.tolist())
    slots = (Slot("a", largest), Slot("b", largest))
    state = engine.init(0, slots, {"penalty": {name: np.float32(value) for name, value in knobs.items()}})
    before = jax.tree.map(np.asarray, state.params)
    step = ComposedStep(engine, slots, penalty=penalty)
    state, metrics = step(state, next(batches(1)), np.zeros((0, 6), np.int32))
    return before, state, metrics, step


def engine(**options):
    return engine_of(lr=1.0, decay=0.0, momentum=0.0, **options)


net = engine().net
lasso = filters.lasso_penalty(net.records, net.space)


def total_of(tree):
    return sum(x.sum() for x in jax.tree.leaves(tree))


def test_penalty_is_added_once_whatever_the_number_of_slots():
    """The penalty's gradient is 3 for all parameters, and the step's two slots do not double it."""
    _, plain, _, _ = stepped(engine())
    flat = lambda trainable, knobs: knobs["strength"] * total_of(trainable["params"])  # noqa: E731
    before, state, metrics, _ = stepped(engine(), flat, strength=3.0)
    assert_trees_close(state.params, jax.tree.map(lambda x: x - 3, plain.params))
    assert_trees_close(state.affine, plain.affine)
    total = 3 * sum(x.sum(dtype=np.float64) for x in jax.tree.leaves(before))
    assert float(metrics["penalty"]) == pytest.approx(total, rel=1e-4)


def test_penalty_sees_gammas_and_betas():
    """Of gradient 3 for parameters, and 2 for gammas and betas: both move by that much more."""
    _, plain, _, _ = stepped(engine())

    def flat(trainable, knobs):
        return knobs["strength"] * (3 * total_of(trainable["params"]) + 2 * total_of(trainable["affine"]))

    _, state, _, _ = stepped(engine(), flat, strength=1.0)
    assert_trees_close(state.params, jax.tree.map(lambda x: x - 3, plain.params))
    assert_trees_close(state.affine, jax.tree.map(lambda x: x - 2, plain.affine))


@pytest.mark.parametrize("clip", [1.0, np.inf])
def test_lasso_shrinks_channels_below_the_threshold_by_its_strength(clip):
    """W - (gradient + strength * W / ||W||) in a group that one convolution makes; nothing more above the mean norm."""
    _, plain, _, _ = stepped(engine())
    before, state, _, _ = stepped(engine(), lasso, strength=0.5, clip=clip)
    pick = lambda params: np.asarray(params["stage2_block1"]["conv1"]["kernel"])  # noqa: E731
    norms = np.sqrt((pick(before) ** 2).sum((0, 1, 2)))
    below = norms < clip * norms.mean()
    assert below.any()
    assert below.all() == np.isinf(clip)
    want = pick(plain.params) - 0.5 * below * pick(before) / norms
    np.testing.assert_allclose(pick(state.params), want, atol=1e-5)


def test_a_strength_of_zero_changes_no_bit():
    _, plain, _, _ = stepped(engine())
    _, state, metrics, _ = stepped(engine(), lasso, strength=0.0, clip=1.0)
    assert_trees_equal(state.params, plain.params)
    assert float(metrics["penalty"]) == 0


def test_other_knobs_compile_nothing_new():
    _, state, _, step = stepped(engine(), lasso, strength=0.5, clip=1.0)
    compiled = step.counts().compiled
    state = state.replace(algorithm={"penalty": {"strength": np.float32(0.1), "clip": np.float32(2.0)}})
    step(state, next(batches(1)), np.zeros((0, 6), np.int32))
    assert step.counts().compiled == compiled


def test_devices_share_one_penalty():
    one = stepped(engine(), lasso, strength=0.5, clip=1.0)[1]
    eight = stepped(engine(devices=8), lasso, strength=0.5, clip=1.0)[1]
    assert_trees_close(one.params, jax.tree.map(jnp.asarray, eight.params))
