"""Networks with choices: every form of a path is the network that is written out by hand."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.choosing import (
    CHANNELS,
    PATHS,
    choosing,
    narrowed,
    one_hot,
    options_of,
    picked,
    soft,
    written,
)
from helpers.engines import batches, engine_of
from helpers.nets import in_float64, inactive, run, variables_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.nn import slicing
from slimjax.nn.choices import Gate
from slimjax.nn.widths import Widths
from slimjax.step.composed import ComposedStep
from slimjax.step.slots import Slot
from slimjax.supernet import Supernet

TRAINED = pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
EVERY_PATH = pytest.mark.parametrize("path", PATHS, ids=["one", "three", "two"])


def in_double(images, path):
    """Both networks in float64, with the same variables, and the images."""
    net, variables, images = in_float64("choosing", images)
    plain = written(path)
    plain = Supernet(plain.model.clone(dtype=jnp.float64), *(net.image_shape, net.rounding, net.min_width))
    return net, variables, plain, {name: picked(tree, path) for name, tree in variables.items()}, images


def as_written(result, path):
    """Logits, statistics and gradients of the path's own arrays."""
    stats = {name: picked(tree, path) for name, tree in result["stats"].items()}
    grads = {name: picked(tree, path) for name, tree in result["grads"].items()}
    return {"logits": result["logits"], "stats": stats, "grads": grads}


@TRAINED
@EVERY_PATH
def test_every_form_of_a_path_is_the_network_written_out(path, train, images):
    """Logits, batch statistics and gradients; and the channels of the groups are fewer than all."""
    with jax.enable_x64(True):
        net, variables, plain, own, images = in_double(images, path)
        subnet, plain_subnet = narrowed(path, CHANNELS)
        want = run(plain, own, images, plain.space.masked(plain_subnet), train)
        for form in (net.space.sliced(subnet), net.space.masked(subnet)):
            found = run(net, variables, images, form, train)
            assert_trees_close(as_written(found, path), want, "float64")
        dense = net.model.apply(net.cut(variables, subnet), images, net.space.sliced(subnet), train=train)
    np.testing.assert_allclose(dense, want["logits"], rtol=1e-9, atol=1e-10)


@TRAINED
def test_gates_without_groups_choose_as_well(train, images):
    """Widths that name no group are not taken for none."""
    net, path, variables = choosing(), PATHS[2], variables_of(choosing())
    chosen = dict(zip(net.space.index, net.space.from_channels(options_of(path)), strict=True))
    gates = {choice.name: Gate(choice.last, jnp.int32(chosen[choice.name])) for choice in net.space.choices}
    found = net.apply(variables, images, Widths(gates=gates), train=train)
    want = net.apply(
        variables, images, net.space.sliced(net.space.from_channels(options_of(path))), train=train
    )
    other = net.apply(variables, images, train=train)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert np.abs(other - want).max() > 1e-2


@TRAINED
@EVERY_PATH
def test_poison_outside_the_path_changes_no_bit(path, train, images):
    """NaN in every entry of the operators, blocks and margins of kernels that are not chosen; gradients there are 0."""
    net, variables = choosing(), variables_of(choosing())
    subnet, _ = narrowed(path, CHANNELS)
    unused = inactive(net, subnet, variables)
    poisoned = jax.tree.map(lambda x, u: np.where(u, np.float32(np.nan), x), variables, unused)
    other = "small" if path[1][0] == "large" else "large"
    assert np.isnan(poisoned["params"]["stage"]["block_1"][f"op_{other}"]["expand"]["kernel"]).all()
    for form in (net.space.masked(subnet), net.space.sliced(subnet)):
        clean, dirty = (run(net, v, images, form, train) for v in (variables, poisoned))
        assert_trees_equal([dirty[k] for k in ("logits", "grads")], [clean[k] for k in ("logits", "grads")])
        kept = lambda result: jax.tree.map(  # noqa: E731
            lambda x, u: np.where(u, np.float32(0), x),
            result["stats"],
            {k: unused[k] for k in result["stats"]},
        )
        assert_trees_equal(kept(dirty), kept(clean))
        outside = jax.tree.map(
            lambda g, u: np.abs(np.asarray(g)[u]).sum(),
            dirty["grads"],
            {k: unused[k] for k in dirty["grads"]},
        )
        assert sum(jax.tree.leaves(outside)) == 0


def test_statistics_of_what_does_not_run_stay_as_they_were(images):
    net, variables, path = choosing(), variables_of(choosing()), PATHS[0]
    subnet, _ = narrowed(path, CHANNELS)
    unused = inactive(net, subnet, variables)["batch_stats"]
    for form in (net.space.masked(subnet), net.space.sliced(subnet)):
        new = run(net, variables, images, form, True)["stats"]["batch_stats"]
        same = jax.tree.map(lambda a, b: np.asarray(a) == b, new, variables["batch_stats"])
        jax.tree.map(np.testing.assert_array_equal, same, unused)


def test_one_compile_serves_many_paths(images):
    """Every path of the network, drawn at random, in the program of the first."""
    net, variables = choosing(), variables_of(choosing())
    count = []

    @jax.jit
    def forward(variables, subnet):
        count.append(0)
        return net.apply(variables, images, net.space.masked(subnet), train=False)

    logits = {}
    for depth, kernel in itertools.product("123", "35"):
        for ops in itertools.product(("small", "large"), repeat=int(depth)):
            path = int(depth), ops, int(kernel)
            subnet = net.space.from_channels(options_of(path))
            logits[path] = np.asarray(forward(variables, subnet))
    assert len(count) == 1
    assert len(logits) == 2 * (2 + 4 + 8)
    far = [np.abs(a - b).max() for a, b in itertools.combinations(logits.values(), 2)]
    assert min(far) > 1e-4, "two paths gave the same"


@TRAINED
@EVERY_PATH
def test_soft_gates_with_one_hot_weights_are_the_path(path, train, images):
    with jax.enable_x64(True):
        net, variables, _, _, images = in_double(images, path)
        subnet = net.space.from_channels(options_of(path))
        want = run(net, variables, images, net.space.sliced(subnet), train)
        found = run(net, variables, images, soft(one_hot(path)), train)
    for name in ("params", "affine"):
        assert_trees_close(found["grads"][name], want["grads"][name], "float64")
    assert_trees_close(found["logits"], want["logits"], "float64")
    mine = [picked(r["stats"]["batch_stats"], path) if train else {} for r in (found, want)]
    assert_trees_close(mine[0], mine[1], "float64")


def test_gradients_of_weights_are_those_of_finite_differences(images):
    """Of the operators' and of the depth's weights, of the window's too: every one of them, in float64."""
    with jax.enable_x64(True):
        net, variables, _, _, images = in_double(images, PATHS[0])
        rng = np.random.default_rng(3)
        weights = {c.name: rng.dirichlet(np.ones(len(c))) for c in net.space.choices}

        @jax.jit
        def loss(weights):
            logits = net.apply(variables, images, soft(weights), train=True)
            return (jnp.sin(3 * logits) * np.arange(1.0, 6)[None]).sum()

        gradient = jax.grad(loss)(weights)
        for name, values in weights.items():
            for i in range(len(values)):
                step = 1e-5 * np.eye(len(values))[i]
                ends = [float(loss({**weights, name: values + sign * step})) for sign in (1, -1)]
                assert float(gradient[name][i]) == pytest.approx(
                    (ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7
                ), name
            assert np.abs(gradient[name]).min() > 1e-4, name


@EVERY_PATH
def test_merging_takes_a_path_from_one_tree_and_all_else_from_the_other(path):
    """Confined steps: NaN in operators, blocks and margins of kernels that the path lacks stays, and no other comes."""
    net, (subnet, _) = choosing(), narrowed(path, CHANNELS)
    variables = variables_of(net)
    nan = jax.tree.map(lambda x: np.full_like(x, np.nan), variables)
    unused = inactive(net, subnet, variables)
    for inside, outside, where in ((variables, nan, lambda u: u), (nan, variables, lambda u: ~u)):
        found = MERGE(inside, outside, subnet)
        jax.tree.map(
            lambda x, u, where=where: np.testing.assert_array_equal(np.isnan(x), where(u)), found, unused
        )
        kept = jax.tree.map(lambda x, v: np.array_equal(x[~np.isnan(x)], v[~np.isnan(x)]), found, variables)
        assert all(jax.tree.leaves(kept))


MERGE = jax.jit(
    lambda one, other, subnet: slicing.merged(choosing().records, choosing().space, one, other, subnet)
)


def test_reordering_moves_the_channels_of_an_operator_only(images):
    """Logits of every path stay; the important channels of the operator come first, those of others stay in place."""
    net, variables = choosing(), variables_of(choosing())
    before = variables["params"]["stage"]["block_2"]
    after = net.reorder(variables, {"block2/large": np.arange(6.0)})
    moved = after["params"]["stage"]["block_2"]
    np.testing.assert_array_equal(
        moved["op_large"]["expand"]["kernel"], before["op_large"]["expand"]["kernel"][..., ::-1]
    )
    assert_trees_equal(moved["op_small"], before["op_small"])
    path = (3, ("small", "large", "small"), 5)
    full, narrow = (net.space.from_channels({**options_of(path), "block2/large": n}) for n in (6, 3))
    logits = [
        np.asarray(net.apply(v, images, net.space.masked(full), train=False)) for v in (variables, after)
    ]
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-5)
    cut = net.cut(after, narrow)["params"]["stage"]["block_2"]["op_large"]
    np.testing.assert_array_equal(cut["expand"]["kernel"], before["op_large"]["expand"]["kernel"][..., :2:-1])


def test_axes_of_a_network_come_in_the_order_of_its_layers():
    """Groups, then choices as they first appear; an axis that every subnet has is under no condition."""
    space = choosing().space
    assert [choice.name for choice in space.choices] == [
        "block1/operator",
        "depth",
        "block2/operator",
        "block3/operator",
        "kernel",
    ]
    assert not {"body", "elastic", "block1/operator", "depth", "kernel"} & set(space.under)


SLOTS = (Slot("one"),)


def stepped(devices, subnets, policy="masked"):
    """Weights before and after confined steps on these subnets, and compiled programs."""
    small = engine_of(lr=0.5, devices=devices, policy=policy)
    engine = dataclasses.replace(small, net=choosing())
    state = engine.init(0, SLOTS)
    before = jax.tree.map(np.asarray, state.params)
    step = ComposedStep(engine, SLOTS, confined=True)
    compiled = []
    for batch, subnet in zip(batches(len(subnets)), subnets, strict=True):
        state, _ = step(state, batch, subnet[None])
        compiled.append(step.counts().compiled)
    return before, jax.tree.map(np.asarray, state.params), compiled


def test_steps_on_devices_choose_alike_and_compile_once():
    """Of one device and of eight that share the batch; what the paths lack does not move; sliced programs agree."""
    subnets = [narrowed(path, CHANNELS)[0] for path in (PATHS[0], PATHS[2])]
    before, one, compiled = stepped(1, subnets)
    assert_trees_close(stepped(8, subnets)[1], one)
    assert_trees_close(stepped(1, subnets, "sliced")[1], one)
    assert compiled[0] == compiled[1], "another path compiled another program"
    assert_trees_equal(one["stage"]["block_3"], before["stage"]["block_3"])
    assert_trees_equal(one["stage"]["block_1"]["op_small"], before["stage"]["block_1"]["op_small"])
    assert np.abs(one["stage"]["block_2"]["op_small"]["expand"]["kernel"]).max() > 0
    moved = one["stage"]["block_2"]["op_small"]["expand"]["kernel"]
    assert not np.array_equal(moved, before["stage"]["block_2"]["op_small"]["expand"]["kernel"])
