"""Mixed operators and depths, one by one: sums by hand, statistics, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers.choosing import BODY, block, soft
from helpers.nets import run, variables_of
from slimjax.errors import UserError
from slimjax.nn.choices import Choice
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import Conv, FeatureMap
from slimjax.nn.mixed import Depth, Mixed
from slimjax.nn.widths import Group, Rounding
from slimjax.supernet import Supernet


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
