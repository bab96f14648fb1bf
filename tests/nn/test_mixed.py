"""Networks with choices: every form of a path is the network that is written out by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers.choosing import (
    BODY,
    CHANNELS,
    PATHS,
    block,
    choosing,
    narrowed,
    one_hot,
    options_of,
    picked,
    soft,
    written,
)
from helpers.nets import in_float64, inactive, run, variables_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.errors import UserError
from slimjax.nn import slicing
from slimjax.nn.choices import Choice, Gate
from slimjax.nn.layers import Conv, FeatureMap, PoolingHead
from slimjax.nn.mixed import Depth, Mixed
from slimjax.nn.widths import Group, Rounding, Widths
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


def rungs(net, subnet):
    """A program in which the path is not the largest one, and neither is the program the largest network's."""
    rung = np.where(
        np.arange(len(subnet)) < len(net.space.groups), (subnet + net.space.largest + 1) // 2, subnet
    )
    return net.space.bucketed(rung, subnet)


@TRAINED
@EVERY_PATH
def test_every_form_of_a_path_is_the_network_written_out(path, train, images):
    """Logits, batch statistics and gradients; and the channels of the groups are fewer than all."""
    with jax.enable_x64(True):
        net, variables, plain, own, images = in_double(images, path)
        subnet, plain_subnet = narrowed(path, CHANNELS)
        want = run(plain, own, images, plain.space.masked(plain_subnet), train)
        for form in (net.space.sliced(subnet), rungs(net, subnet), net.space.masked(subnet)):
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


class Scaled(nn.Module):
    """An operator without a norm: channels times a number."""

    group: Group

    @nn.compact
    def __call__(self, x):
        return Conv(self.group, kernel_size=1, dtype=x.value.dtype, name="conv")(x).map(jnp.tanh)


class Sums(nn.Module):
    """Depths of one and three, each block one of two operators."""

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        make = functools.partial(Scaled, BODY)
        mixed = [functools.partial(Mixed, Choice(f"op{i}", ("a", "b")), (make, make)) for i in (1, 2, 3)]
        x = Conv(BODY, dtype=images.dtype, name="stem")(FeatureMap.of(images, widths))
        x = Depth(Choice("depth", ("1", "3")), tuple(mixed), name="stage")(x)
        return PoolingHead(5, dtype=images.dtype, name="head")(x)


WEIGHTS = {
    "depth": np.array([0.3, 0.7]),
    "op1": np.array([0.6, 0.4]),
    "op2": np.array([0.1, 0.9]),
    "op3": np.array([0.5, 0.5]),
}


def sums():
    net = Supernet(Sums(), (8, 8, 3), Rounding("truncate"), 0.5)
    return net, jax.tree.map(lambda x: x.astype(np.float64), variables_of(net))


def test_soft_gates_are_the_weighted_sum_of_branches(images):
    """By hand: x_d of d blocks, each the sum of weight times operator; the stage is the sum over depths (sinks)."""
    with jax.enable_x64(True):
        net, variables = sums()
        params, images = variables["params"], images.astype(np.float64)
        x = Conv(BODY, dtype=jnp.float64).apply({"params": params["stem"]}, FeatureMap.of(images)).value
        prefixes = []
        for number in (1, 2, 3):
            ops = params["stage"][f"block_{number}"]
            parts = [jnp.tanh(x @ ops[f"op_{name}"]["conv"]["kernel"][0, 0]) for name in "ab"]
            x = WEIGHTS[f"op{number}"][0] * parts[0] + WEIGHTS[f"op{number}"][1] * parts[1]
            prefixes.append(x)
        mixed = 0.3 * prefixes[0] + 0.7 * prefixes[2]
        head = params["head"]["classifier"]
        want = mixed.mean((1, 2)) @ head["kernel"] + head["bias"][None]
        found = net.apply(variables, images, soft(WEIGHTS), train=True)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize("depth", [1, 3])
def test_one_hot_depth_is_the_truncated_stage(depth, images):
    """Also where depths are not one after the other: of options 1 and 3 the second runs three blocks."""
    net, variables = sums()
    ops = {f"op{number}": "a" for number in (1, 2, 3)}
    subnet = net.space.from_channels({"depth": str(depth), **ops})
    hot = {"depth": np.eye(2)[int(depth > 1)], **{name: np.eye(2)[0] for name in ops}}
    x = Conv(BODY).apply({"params": variables["params"]["stem"]}, FeatureMap.of(images)).value
    for number in range(1, depth + 1):
        kernel = variables["params"]["stage"][f"block_{number}"]["op_a"]["conv"]["kernel"]
        x = jnp.tanh(x @ kernel[0, 0].astype(np.float32))
    head = variables["params"]["head"]["classifier"]
    want = x.mean((1, 2)) @ head["kernel"].astype(np.float32) + head["bias"].astype(np.float32)[None]
    variables = jax.tree.map(lambda x: x.astype(np.float32), variables)
    for form in (soft(hot), net.space.masked(subnet), net.space.sliced(subnet)):
        found = net.apply(variables, images, form, train=False)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert set(net.cut(variables, subnet)["params"]["stage"]) == {f"block_{n}" for n in range(1, depth + 1)}


@pytest.mark.parametrize("weights", [False, True], ids=["traced", "soft"])
def test_networks_without_statistics_have_none_to_collect(weights, images):
    """Whoever collects asks every network for its statistics; and some operators alone may have none."""
    net, variables = sums()
    variables = jax.tree.map(lambda x: x.astype(np.float32), variables)
    widths = soft(WEIGHTS) if weights else net.space.masked(net.space.smallest)
    plain = net.apply(variables, images, widths, train=True)
    logits, new = net.apply(variables, images, widths, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(logits, plain)
    assert not jax.tree.leaves(dict(new))


class Bare(nn.Module):
    """The operator that does nothing."""

    def __call__(self, x, train):
        return x


class Some(nn.Module):
    """One operator has statistics, the other has not."""

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(BODY, name="stem")(FeatureMap.of(images, widths))
        operators = block("op", 4, 3, jnp.float32), Bare
        x = Mixed(Choice("operator", ("block", "none")), operators, name="mixed")(x, train)
        return PoolingHead(5, name="head")(x)


@pytest.mark.parametrize("form", ["masked", "sliced", "soft"])
@pytest.mark.parametrize("option", [0, 1])
def test_operators_without_statistics_leave_those_of_the_others(option, form, images):
    net = Supernet(Some(), (8, 8, 3), Rounding("truncate"), 0.5)
    variables = variables_of(net)
    subnet = net.space.from_channels({"operator": ("block", "none")[option]})
    widths = soft({"operator": np.eye(2)[option]}) if form == "soft" else getattr(net.space, form)(subnet)
    result = run(net, variables, images, widths, True)
    before = variables["batch_stats"]["mixed"]["op_block"]
    after = result["stats"]["batch_stats"]["mixed"]["op_block"]
    changed = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    assert all(changed) == (option == 0 or form == "soft")
    assert any(changed) == (option == 0 or form == "soft")
    x = FeatureMap.of(images)
    x = Conv(BODY).apply({"params": variables["params"]["stem"]}, x)
    if option == 0:
        own = {name: variables[name]["mixed"]["op_block"] for name in variables}
        x = block("op", 4, 3, jnp.float32)().apply(own, x, True)
    want = PoolingHead(5).apply({"params": variables["params"]["head"]}, x)
    np.testing.assert_allclose(result["logits"], want, rtol=1e-4, atol=1e-5)


class Built(nn.Module):
    """Whatever is built of a body of 4 channels."""

    make: object

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        return PoolingHead(5, name="head")(
            self.make()(Conv(BODY, name="stem")(FeatureMap.of(images, widths)))
        )


def traced(make):
    return Supernet(Built(make), (8, 8, 3), Rounding("truncate"), 0.5).records


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            functools.partial(Scaled, Group("other", 4)),
            "option 'b' gives .* in group 'other', and 'a' .* in 'body'",
        ),
        (
            functools.partial(Conv, BODY, stride=2),
            r"option 'b' gives \(4, 4, 4\) in group 'body', and 'a' \(8, 8, 4\)",
        ),
    ],
)
def test_operators_that_give_something_else_are_refused(other, message):
    choice = Choice("op", ("a", "b"))
    with pytest.raises(
        TypeError, match=rf"mixed: .*{message}.*All options must give one shape, in one group"
    ):
        traced(functools.partial(Mixed, choice, (functools.partial(Scaled, BODY), other), name="mixed"))


def test_blocks_of_a_depth_that_leave_the_group_are_refused():
    blocks = functools.partial(Scaled, BODY), functools.partial(Scaled, Group("other", 4))
    with pytest.raises(TypeError, match=r"stage: option '2' gives .* in group 'other', and '1' .* in 'body'"):
        traced(functools.partial(Depth, Choice("depth", ("1", "2")), blocks, name="stage"))


@pytest.mark.parametrize("options", [("0", "2"), ("1", "3"), ("2", "1"), ("1",)])
def test_depths_that_the_blocks_do_not_have_are_refused(options):
    blocks = (functools.partial(Scaled, BODY),) * 2
    with pytest.raises(UserError, match="choice 'depth': expected rising numbers of blocks from 1 to 2, got"):
        traced(functools.partial(Depth, Choice("depth", options), blocks))


def test_depths_may_begin_above_one(images):
    """Options 2, 3 and 4: two blocks always run, under no condition."""
    blocks = (functools.partial(Scaled, BODY),) * 4
    make = functools.partial(Depth, Choice("depth", ("2", "3", "4")), blocks, name="stage")
    net = Supernet(Built(make), (8, 8, 3), Rounding("truncate"), 0.5)
    under = {r.path[1]: [when.options for when in r.under] for r in net.records if r.path[0] == "stage"}
    assert under == {"block_1": [], "block_2": [], "block_3": [(1, 2)], "block_4": [(2,)]}
    variables = variables_of(net)
    for option, depth in enumerate((2, 3, 4)):
        x = Conv(BODY).apply({"params": variables["params"]["stem"]}, FeatureMap.of(images)).value
        for number in range(1, depth + 1):
            x = jnp.tanh(x @ variables["params"]["stage"][f"block_{number}"]["conv"]["kernel"][0, 0])
        subnet = net.space.from_channels({"depth": str(depth)})
        assert subnet[-1] == option
        head = PoolingHead(5).apply({"params": variables["params"]["head"]}, FeatureMap.of(x))
        for form in (net.space.sliced(subnet), net.space.masked(subnet), soft({"depth": np.eye(3)[option]})):
            found = net.apply(variables, images, form, train=False)
            np.testing.assert_allclose(found, head, rtol=1e-4, atol=1e-5)


@EVERY_PATH
def test_merging_takes_a_path_from_one_tree_and_all_else_from_the_other(path):
    """Confined steps. NaN comes from neither side: operators, blocks and margins of kernels that the path lacks stay."""
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
