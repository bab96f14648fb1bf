"""Costs of networks with choices: of a subnet, and of a soft mixture of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers.choosing import BODY, CHANNELS, PATHS, block, choosing, narrowed, one_hot, written
from helpers.nets import variables_of
from slimjax.cost import units
from slimjax.cost.latency import Entry, Latency, LatencyTable
from slimjax.nn.choices import Choice
from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import Conv
from slimjax.nn.mixed import Mixed
from slimjax.nn.widths import Rounding
from slimjax.supernet import Supernet

NET = choosing()
SPACE = NET.space
EVERY_PATH = pytest.mark.parametrize("path", PATHS, ids=["one", "three", "two"])
OVERHEAD = 0.25


def drawn(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(SPACE.legal(axis), count) for axis in SPACE.axes], -1).astype(np.int32)


def true_ms(key, sizes):
    """Linear in every axis, so that interpolation is exact; of another slope for each unit."""
    return OVERHEAD + (1 + len(key) % 7 + sum(map(ord, key)) % 11) * np.prod([0.1 + n for n in sizes]) / 1e4


def table_of(*nets) -> LatencyTable:
    entries = {}
    for unit in [unit for net in nets for unit in units.divide(net.records)]:
        grid = tuple(np.array([1, 3, group.channels + 1]) for group in unit.axes)
        mesh = np.stack(np.meshgrid(*grid, indexing="ij"), -1) if grid else np.zeros(0)
        median = np.apply_along_axis(lambda sizes, key=unit.key: true_ms(key, sizes), -1, mesh)
        entries[unit.key] = Entry(grid, median, 0.1 * median)
    return LatencyTable(
        {"network": {"name": "x"}, "target": "cpu", "batch": 1, "dtype": "float32"}, OVERHEAD, entries
    )


LATENCY = NET.latency(table_of(NET))
COSTS = {"macs": NET.macs, "params": NET.params, "latency": LATENCY}
EVERY_COST = pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)


def test_params_are_the_entries_of_the_network_that_is_cut_out():
    variables = {name: variables_of(NET)[name] for name in ("params", "affine")}
    for subnet in drawn(20):
        assert NET.params(subnet) == sum(x.size for x in jax.tree.leaves(NET.cut(variables, subnet)))


def by_hand(subnet) -> int:
    """MACs of the choosing network: 8 x 8 pixels of 3 channels, a stem of stride 2, blocks of 4 x 4 pixels."""
    words = SPACE.to_channels(subnet)
    body, side = words["body"], int(words["kernel"])
    inverted = lambda hidden, k: 16 * (2 * body * hidden + k * k * hidden)  # noqa: E731
    total = 16 * 9 * 3 * body + inverted(words["elastic"], side)
    for number in range(1, int(words["depth"]) + 1):
        operator = words[f"block{number}/operator"]
        total += inverted(words[f"block{number}/{operator}"], {"small": 3, "large": 5}[operator])
    return total + 16 * body + 5 * body  # pooling, classifier


def test_macs_are_those_counted_by_hand():
    found = NET.macs(drawn())
    assert found.dtype == np.int64
    assert found.tolist() == [by_hand(subnet) for subnet in drawn()]
    assert [int(NET.macs(subnet)) for subnet in drawn()[:3]] == found[:3].tolist()


@EVERY_PATH
def test_costs_are_those_of_the_network_written_without_choices(path):
    """MACs, parameters, and peak memory of images and batches."""
    subnet, plain_subnet = narrowed(path, CHANNELS)
    plain = written(path)
    assert int(NET.macs(subnet)) == int(plain.macs(plain_subnet))
    assert int(NET.params(subnet)) == int(plain.params(plain_subnet))
    for batch in (1, 64):
        assert int(NET.peak_memory(subnet, batch)) == int(plain.peak_memory(plain_subnet, batch))


@EVERY_COST
def test_costs_are_those_of_each_subnet_alone(cost):
    np.testing.assert_array_equal(cost(drawn()), [cost(subnet) for subnet in drawn()])
    np.testing.assert_array_equal(cost(drawn(4).reshape(2, 2, -1)).ravel(), cost(drawn(4)))
    if cost is not LATENCY:
        peaks = NET.peak_memory(drawn())
        assert peaks.tolist() == [NET.peak_memory(subnet) for subnet in drawn()]


@EVERY_COST
def test_axes_that_do_not_exist_cost_nothing(cost):
    subnets = drawn()
    np.testing.assert_array_equal(cost(SPACE.canonical(subnets)), cost(subnets))
    assert (SPACE.canonical(subnets) != subnets).any()


@EVERY_COST
def test_costs_inside_jit_are_those_of_the_host(cost):
    """Of one subnet and of several."""
    traced = jax.jit(cost)
    np.testing.assert_allclose(traced(jnp.asarray(drawn())), cost(drawn()), rtol=1e-5)
    np.testing.assert_allclose(traced(jnp.asarray(drawn()[0])), cost(drawn()[0]), rtol=1e-5)


def random_weights(seed=3):
    rng = np.random.default_rng(seed)
    return {choice.name: rng.dirichlet(np.ones(len(choice))) for choice in SPACE.choices}


def expected(cost, channels, weights) -> float:
    """The sum, over all 48 ways to choose, of their chance times their cost."""
    total = 0.0
    for path in itertools.product(*(range(len(choice)) for choice in SPACE.choices)):
        chance = np.prod([weights[c.name][option] for c, option in zip(SPACE.choices, path, strict=True)])
        total += chance * float(cost(np.array([*channels[: len(SPACE.groups)], *path], np.int32)))
    return total


@EVERY_COST
def test_soft_cost_is_the_sum_over_all_paths(cost):
    channels, weights = drawn()[0], random_weights()
    assert float(cost.soft(channels, weights)) == pytest.approx(expected(cost, channels, weights), rel=1e-9)
    traced = jax.jit(cost.soft)(jnp.asarray(channels), jax.tree.map(jnp.float32, weights))
    assert float(traced) == pytest.approx(expected(cost, channels, weights), rel=1e-5)


@EVERY_COST
def test_choices_without_weights_are_those_of_the_subnet(cost):
    channels, weights = drawn()[1], random_weights()
    given = {name: weights[name] for name in ("depth", "block2/operator")}
    fixed = {c.name: np.eye(len(c))[channels[SPACE.index[c.name]]] for c in SPACE.choices}
    want = expected(cost, channels, {**fixed, **given})
    assert float(cost.soft(channels, given)) == pytest.approx(want, rel=1e-9)


@EVERY_COST
@EVERY_PATH
def test_soft_cost_of_one_hot_weights_is_exact(path, cost):
    subnet, _ = narrowed(path, CHANNELS)
    assert float(cost.soft(subnet, one_hot(path))) == float(cost(subnet))


@EVERY_COST
def test_gradients_of_soft_costs_are_those_of_finite_differences(cost):
    """By weights and by channels, in float64 on the host; JAX's are float32."""
    channels, weights = drawn()[2].astype(np.float64), random_weights()
    channels[: len(SPACE.groups)] += 0.25  # within a cell of the table
    loss = jax.jit(lambda channels, weights: cost.soft(channels, weights))
    by_channels, by_weights = jax.grad(loss, argnums=(0, 1))(
        jnp.asarray(channels, jnp.float32), jax.tree.map(jnp.float32, weights)
    )
    for name, values in weights.items():
        steps = 1e-3 * np.eye(len(values))
        slopes = [
            (
                cost.soft(channels, {**weights, name: values + s})
                - cost.soft(channels, {**weights, name: values - s})
            )
            / 2e-3
            for s in steps
        ]
        np.testing.assert_allclose(by_weights[name], slopes, rtol=1e-4, err_msg=name)
    for i in range(len(SPACE.groups)):
        step = 1e-3 * np.eye(len(SPACE))[i]
        slope = (cost.soft(channels + step, weights) - cost.soft(channels - step, weights)) / 2e-3
        assert float(by_channels[i]) == pytest.approx(slope, rel=1e-3)


def test_choices_far_from_a_block_do_not_change_its_share():
    """Gradient of the third block's operator is its cost times the chance that the stage is three blocks deep."""
    weights, channels = random_weights(), SPACE.largest
    gradient = jax.grad(lambda w: NET.macs.soft(jnp.asarray(channels), w))(jax.tree.map(jnp.float32, weights))
    large = by_hand(channels) - by_hand(SPACE.from_channels({"depth": "2"}))
    assert float(gradient["block3/operator"][1]) == pytest.approx(weights["depth"][2] * large, rel=1e-5)


def test_peak_memory_is_of_subnets_on_the_host_only():
    with pytest.raises(ValueError, match="expected subnets on the host"):
        NET.peak_memory(jnp.asarray(SPACE.largest))


class Doubled(nn.Module):
    """x plus one of two operators of x, of which one does nothing."""

    written: str = ""

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(BODY, name="stem")(FeatureMap.of(images, widths))
        makes = {"block": block("op", 4, 3, jnp.float32), "none": Nothing}
        if self.written:
            y = makes[self.written](name="op")(x, train)
        else:
            y = Mixed(Choice("op_choice", tuple(makes)), tuple(makes.values()), name="op")(x, train)
        return PoolingHead(5, name="head")(x + y)


class Nothing(nn.Module):
    def __call__(self, x, train):
        return x


@pytest.mark.parametrize("option", ["block", "none"])
def test_a_choice_among_results_takes_no_memory_of_its_own(option):
    """Also where the result is an input that is read again."""
    net, plain = (Supernet(Doubled(name), (8, 8, 1), Rounding("truncate"), 0.5) for name in ("", option))
    subnet = net.space.from_channels({"op_choice": option, "body": 3})
    want = plain.peak_memory(plain.space.from_channels({"body": 3}))
    assert int(net.peak_memory(subnet)) == int(want)


def test_every_branch_and_every_side_of_a_kernel_is_a_unit():
    parts = units.divide(NET.records)
    found = [tuple((when.choice.name, when.options) for when in unit.under) for unit in parts]
    deep, deeper = ("depth", (1, 2)), ("depth", (2,))
    assert found == [
        (),
        *[(("block1/operator", (i,)),) for i in (0, 1)],
        *[(deep, ("block2/operator", (i,))) for i in (0, 1)],
        *[(deeper, ("block3/operator", (i,))) for i in (0, 1)],
        *[(("kernel", (i,)),) for i in (0, 1)],
        (),
    ]
    assert parts[1].key == parts[3].key == parts[5].key != parts[2].key
    assert parts[7].key != parts[8].key
    assert "DepthwiseConv3x3" in parts[7].key
    assert "DepthwiseConv5x5" in parts[8].key


@EVERY_PATH
def test_latency_of_a_path_is_that_of_the_network_written_without_choices(path):
    """Units that do the same have the same keys, so one table serves; the stem, which goes with the first block where
    it is no choice's, has an entry of its own."""
    plain = written(path)
    subnet, plain_subnet = narrowed(path, CHANNELS)
    chosen = [unit for unit in units.divide(NET.records) if _runs(unit, subnet)]
    ours, theirs = chosen, units.divide(plain.records)
    assert [unit.key for unit in ours[2:]] == [unit.key for unit in theirs[1:]]
    table = table_of(NET, plain)
    mine = NET.latency(table).per_unit(subnet)
    found = [ms for unit, ms in zip(units.divide(NET.records), mine, strict=True) if _runs(unit, subnet)]
    want = Latency(table, theirs, plain.space).per_unit(plain_subnet)
    np.testing.assert_allclose(found[2:], want[1:], rtol=1e-12)
    total = OVERHEAD + sum(ms - OVERHEAD for ms in found)
    assert float(NET.latency(table)(subnet)) == pytest.approx(total, rel=1e-12)


def _runs(unit, subnet) -> bool:
    """By hand, without `holds`."""
    options = {choice.name: subnet[SPACE.index[choice.name]] for choice in SPACE.choices}
    return all(options[when.choice.name] in when.options for when in unit.under)


def test_networks_without_choices_have_no_gates():
    assert written(PATHS[0]).macs.gated is None
    assert NET.macs.gated is not None
