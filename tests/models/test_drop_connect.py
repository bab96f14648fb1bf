"""Drop-connect: residual branches that are dropped for an image, in training with dropout only."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.engines import batches, engine_of
from helpers.nets import named
from helpers.tfnas import OPTIONS
from helpers.trees import assert_trees_equal
from slimjax.algorithms import snet
from slimjax.errors import UserError
from slimjax.models.inverted_residual import InvertedResidual
from slimjax.nn.dropout import Dropout
from slimjax.nn.layers import BatchNorm, FeatureMap
from slimjax.nn.widths import Group, Widths

GROUP = Group("body", 3)
BLOCK = InvertedResidual(None, GROUP, 3, 1, jax.nn.relu, None, BatchNorm, jnp.float32, drop_connect=(2, 0.25))
IMAGES = 16


def keys(count, seed=0):
    return jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(seed), count))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(IMAGES, 4, 4, 3)).astype(np.float32)


@functools.cache
def variables():
    return BLOCK.init(jax.random.key(0), FeatureMap(jnp.ones((2, 4, 4, 3)), GROUP, Widths()), True)


def branch(images, dropout, train=True, block=BLOCK):
    """What a block adds to its input."""
    widths = Widths(dropout=dropout)
    return np.asarray(
        block.apply(variables(), FeatureMap(jnp.asarray(images), GROUP, widths), train).value - images
    )


def test_a_branch_is_dropped_for_whole_images_and_scaled_for_others(images):
    dropout = Dropout(0.1, keys(IMAGES))
    whole, found = branch(images, None), branch(images, dropout)
    kept = found.any((1, 2, 3))
    assert 0 < kept.sum() < IMAGES
    np.testing.assert_allclose(found[kept], whole[kept] / 0.75, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[~kept], 0)
    factors = dropout.drops_path(2, 0.25)
    np.testing.assert_array_equal(factors > 0, kept)


def test_an_image_is_dropped_by_its_own_key(images):
    """However a batch is shared out; and in each block anew."""
    everyone = keys(64)
    factors = Dropout(0.1, everyone).drops_path(2, 0.25)
    halves = [Dropout(0.1, part).drops_path(2, 0.25) for part in (everyone[:32], everyone[32:])]
    np.testing.assert_array_equal(np.concatenate(halves), factors)
    assert (Dropout(0.1, everyone).drops_path(3, 0.25) != factors).any()
    assert (Dropout(0.1, keys(64, seed=1)).drops_path(2, 0.25) != factors).any()


def test_factors_have_a_mean_of_one():
    factors = Dropout(0.1, keys(20_000)).drops_path(1, 0.25)
    assert (factors == 0).mean() == pytest.approx(0.25, abs=0.012)
    assert factors.mean() == pytest.approx(1, abs=0.016)


def test_nothing_is_dropped_without_dropout_or_rate_or_shortcut(images):
    whole, dropout = branch(images, None), Dropout(0.1, keys(IMAGES))
    np.testing.assert_array_equal(branch(images, dropout, block=BLOCK.clone(drop_connect=(2, 0.0))), whole)
    other = BLOCK.clone(outer=Group("other", 3))
    x = [FeatureMap(jnp.asarray(images), GROUP, Widths(dropout=d)) for d in (None, dropout)]
    assert_trees_equal(*(other.apply(variables(), y, True).value for y in x))


def test_rates_rise_with_the_place_of_the_block(monkeypatch):
    """The last has the whole rate; those without a shortcut drop nothing."""
    asked = {}
    drops = Dropout.drops_path

    def spy(self, number, rate):
        asked[number] = rate
        return drops(self, number, rate)

    monkeypatch.setattr(Dropout, "drops_path", spy)
    stages = ((4, 4, 1, "relu"),)
    net = named("tfnas", **{**OPTIONS, "stages": stages, "operators": ("k3e3",)}, drop_connect=0.2)
    widths = dataclasses.replace(net.space.sliced(net.space.largest), dropout=Dropout(0.1, keys(2)))
    shapes = {name: part for name, part in net.variable_shapes.items() if name != "batch_stats"}
    jax.eval_shape(lambda v: net.apply(v, jnp.ones((2, 8, 8, 3)), widths, train=True), shapes)
    assert asked == {number: pytest.approx(0.2 * number / 4) for number in (2, 3, 4)}


def switch(dropout, drop_connect):
    """Training of a network's published subnet."""
    net = named("tfnas", **{**OPTIONS, "operators": ("k3e3",)}, drop_connect=drop_connect)
    engine = dataclasses.replace(
        engine_of(), net=dataclasses.replace(net, variants={"A": {"stage1/block2/k3e3": 9}})
    )
    return engine, snet(engine, widths=(), variants=("A",), dropout=dropout)


def first_loss(dropout, drop_connect):
    engine, algorithm = switch(dropout, drop_connect)
    state = algorithm.init(0)
    head = jax.tree.map(lambda x: 100 * x, state.params["head"])
    state = dataclasses.replace(state, params={**state.params, "head": head})
    (slot,) = algorithm.at(0).step.slots
    assert engine.net.space.to_channels(slot.subnet)["stage1/block2/k3e3"] == 9
    _, metrics = algorithm.at(0).step(state, next(batches(1, 4)), algorithm.propose({}, 0))
    return float(metrics["A/loss"])


def test_a_step_drops_branches_where_it_drops_the_classifiers_input():
    """The same draws of the classifier's input, with branches that are dropped and without."""
    plain = first_loss(0.0, 0.0)
    assert first_loss(0.0, 0.5) == plain
    assert len({plain, first_loss(0.3, 0.0), first_loss(0.3, 0.5)}) == 3


def test_an_evaluation_drops_nothing():
    batch, results = {**next(batches(1, 4)), "weight": np.ones(4, np.float32)}, []
    for dropout, drop_connect in ((0.0, 0.0), (0.3, 0.5)):
        engine, algorithm = switch(dropout, drop_connect)
        state = algorithm.init(0)
        chosen = algorithm.choose(state, None)["A"]
        statistics = state.statistics(chosen.stats)
        results.append(engine.test(state, chosen.affine, statistics, chosen.subnet, batch))
    assert_trees_equal(*results)


def test_published_subnets_that_a_model_has_not_are_refused():
    with pytest.raises(UserError, match=r"variants\[0\].*'B'"):
        snet(engine_of(), widths=(), variants=("B",))
