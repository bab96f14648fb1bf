"""Structure parameters: filters scaled by a softmax over the channels of a subnet."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers.nets import NETS, every_layer, forms, in_float64, run, subnet_of, variables_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.nn import structure
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding, Widths
from slimjax.supernet import Supernet

SOME = ["every_layer", "mobilenet_v3_large", "s_shufflenet"]


def alphas_of(net, dtype=np.float32):
    """Standard normal, so that shares differ by a factor of some ten."""
    rng = np.random.default_rng(4)
    found = jax.eval_shape(lambda: structure.init(net.records, jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(dtype), found)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", SOME)
def test_masked_bucketed_and_sliced_agree(name, train, images):
    """Values and gradients, those of the alphas too, in float64; alphas matter, as other ones show."""
    with jax.enable_x64(True):
        net, variables, images = in_float64(name, images)
        variables = {**variables, "structure": alphas_of(net, np.float64)}
        subnet = subnet_of(net)
        results = {form: run(net, variables, images, w, train) for form, w in forms(net, subnet).items()}
        flat = {**variables, "structure": jax.tree.map(np.zeros_like, variables["structure"])}
        other = run(net, flat, images, net.space.masked(subnet), train)
    for form in ("masked", "bucketed"):
        assert_trees_close(results[form], results["sliced"], "float64")
    assert set(results["sliced"]["grads"]) == {"params", "affine", "structure"}
    assert np.abs(other["logits"] - results["sliced"]["logits"]).max() > 1e-3


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", SOME)
def test_cut_network_is_an_ordinary_one_and_equal(name, train, images):
    with jax.enable_x64(True):
        net, variables, images = in_float64(name, images)
        variables = {**variables, "structure": alphas_of(net, np.float64)}
        subnet = subnet_of(net)
        dense = net.cut(variables, subnet)
        assert set(dense) == {"params", "affine", "batch_stats"}
        alone = net.model.apply(dense, images, net.space.sliced(subnet), train=train)
        masked = net.apply(variables, images, net.space.masked(subnet), train=train)
    np.testing.assert_allclose(alone, masked, rtol=1e-9, atol=1e-10)


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def test_every_filter_is_scaled_by_the_share_of_its_channel():
    """Group "a" of 8 channels, of which 3 are active: stem and depthwise filters; "b", all 16: the strided one."""
    net = every_layer()
    params, alphas = variables_of(net)["params"], alphas_of(net)
    assert set(alphas["alphas"]) == {"a", "b"}
    subnet = net.space.from_channels({"a": 3})
    found = structure.scaled(net.records, params, alphas, net.space.masked(subnet))
    share = np.zeros(8)
    share[:3] = softmax(alphas["alphas"]["a"][:3])
    np.testing.assert_allclose(found["stem"]["kernel"], params["stem"]["kernel"] * share, rtol=1e-5)
    depthwise = found["depthwise"]["depthwise_kernel"]
    np.testing.assert_allclose(depthwise, params["depthwise"]["depthwise_kernel"] * share, rtol=1e-5)
    want = params["down"]["kernel"][:, :, :3] * softmax(alphas["alphas"]["b"])
    np.testing.assert_allclose(found["down"]["kernel"][:, :, :3], want, rtol=1e-5)
    for untouched in (("stem", "bias"), ("se", "expand", "kernel"), ("head", "kernel")):
        before, after = params, found
        for name in untouched:
            before, after = before[name], after[name]
        np.testing.assert_array_equal(after, before)


def test_entries_of_one_channel_are_scaled_alike():
    """An axis of twice the group: entries 2c and 2c + 1 belong to channel c."""

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, images, widths=None, train=False):
            x = Conv(Group("g", 4).times(2), name="conv")(FeatureMap.of(images, widths))
            return PoolingHead(5, name="head")(x)

    net = Supernet(Twice(), (8, 8, 3), Rounding("truncate"), 0.25)
    alphas = {"alphas": {"g": np.log([1.0, 2.0, 5.0, 100.0])}}
    kernel = np.ones((3, 3, 3, 8), np.float32)
    params = {**variables_of(net)["params"], "conv": {"kernel": kernel}}
    for form in ("masked", "sliced"):
        widths = getattr(net.space, form)(net.space.from_channels({"g": 3}))
        found = structure.scaled(net.records, params, alphas, widths)["conv"]["kernel"][0, 0, 0]
        want = [0.125, 0.125, 0.25, 0.25, 0.625, 0.625]
        np.testing.assert_allclose(found, want + [0, 0] * (form == "masked"), rtol=1e-6)


def test_equal_alphas_share_one_among_the_active_channels():
    net = every_layer()
    ones = jax.tree.map(np.ones_like, variables_of(net)["params"])
    alphas = jax.tree.map(lambda x: np.full_like(x, 0.7), alphas_of(net))
    found = structure.scaled(net.records, ones, alphas, net.space.sliced(net.space.from_channels({"a": 5})))
    np.testing.assert_allclose(found["stem"]["kernel"], np.full((3, 3, 3, 5), 1 / 5), rtol=1e-6)
    np.testing.assert_allclose(found["down"]["kernel"], np.full((3, 3, 5, 16), 1 / 16), rtol=1e-6)


class TwoLayers(nn.Module):
    """No norm, so that scales reach the logits."""

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(Group("first", 4), dtype=jnp.float64, name="one")(FeatureMap.of(images, widths))
        x = Conv(Group("second", 6), dtype=jnp.float64, name="two")(x.map(jnp.tanh))
        return PoolingHead(5, dtype=jnp.float64, name="head")(x.map(jnp.tanh))


@pytest.mark.parametrize("form", ["masked", "sliced"])
def test_gradient_of_alphas_is_that_of_finite_differences(form, images):
    """Within a subnet of 3 and 4 channels; beyond them it is exactly 0."""
    with jax.enable_x64(True):
        net = Supernet(TwoLayers(), (8, 8, 3), Rounding("truncate"), 0.25)
        variables = jax.tree.map(lambda x: x.astype(np.float64), variables_of(net))
        alphas, subnet = alphas_of(net, np.float64)["alphas"], [3, 4]
        widths, slopes = getattr(net.space, form)(subnet), np.arange(1.0, 6)[None]

        @jax.jit
        def loss(alphas):
            whole = {**variables, "structure": {"alphas": alphas}}
            logits = net.apply(whole, images.astype(np.float64), widths, train=True)
            return (jnp.sin(30 * logits) * slopes).sum()

        gradient = jax.grad(loss)(alphas)
        for (name, values), active in zip(alphas.items(), subnet, strict=True):
            for c in range(len(values)):
                step = np.zeros(len(values))
                step[c] = 1e-5
                ends = [float(loss({**alphas, name: values + sign * step})) for sign in (1, -1)]
                assert float(gradient[name][c]) == pytest.approx(
                    (ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8
                )
            assert np.abs(gradient[name][:active]).min() > 1e-3
            assert (np.asarray(gradient[name][active:]) == 0).all()


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_poison_outside_the_subnet_changes_no_bit(train, images):
    """NaN in every alpha and every kernel entry that the subnet does not use: value and gradient are the same."""
    net = every_layer()
    subnet = subnet_of(net)
    clean = {**variables_of(net), "structure": alphas_of(net)}
    dirty = jax.tree.map(np.array, clean)
    for name, count in net.space.to_channels(subnet).items():
        if name in dirty["structure"]["alphas"]:
            dirty["structure"]["alphas"][name][count:] = np.nan
    a, b = (net.space.to_channels(subnet)[name] for name in ("a", "b"))
    dirty["params"]["stem"]["kernel"][..., a:] = np.nan
    dirty["params"]["depthwise"]["depthwise_kernel"][..., a:] = np.nan
    dirty["params"]["down"]["kernel"][:, :, a:] = np.nan
    dirty["params"]["down"]["kernel"][..., b:] = np.nan
    assert np.isnan(dirty["structure"]["alphas"]["a"]).any()
    results = [run(net, v, images, net.space.masked(subnet), train) for v in (clean, dirty)]
    assert_trees_equal(results[1], results[0])
    assert np.abs(results[0]["grads"]["structure"]["alphas"]["a"]).max() > 0


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v3_large"])
def test_reordering_takes_the_alphas_with_their_channels(name, images):
    with jax.enable_x64(True):
        net, variables, images = in_float64(name, images)
        variables = {**variables, "structure": alphas_of(net, np.float64)}
        after = net.reorder(variables, variables["structure"]["alphas"])
        largest = net.space.sliced(net.space.largest)
        one, other = (run(net, v, images, largest, True) for v in (variables, after))
        np.testing.assert_allclose(other["logits"], one["logits"], rtol=0, atol=1e-10)
        assert_trees_close(
            other["grads"], net.reorder(one["grads"], variables["structure"]["alphas"]), "float64"
        )
    moved = jax.tree.map(lambda x, y: not np.array_equal(x, y), variables["structure"], after["structure"])
    assert all(moved["alphas"].values())


def test_alphas_begin_as_kaiming_has_them():
    """For each group that a convolution writes to, of variance 2 / C; other groups and seeds draw others."""
    net = NETS["every_layer"]()
    wide = dataclasses.replace(net, model=WideLayers())
    alphas = structure.init(wide.records, jax.random.key(1))["alphas"]
    assert {name: leaf.shape for name, leaf in alphas.items()} == {"one": (4000,), "two": (2000,)}
    for name, leaf in alphas.items():
        assert float(leaf.std() * (len(leaf) / 2) ** 0.5) == pytest.approx(1, abs=0.05), name
        assert abs(float(leaf.mean())) < 0.1 * float(leaf.std())
        assert leaf.dtype == np.float32
    again = structure.init(wide.records, jax.random.key(2))["alphas"]
    assert not np.array_equal(again["one"], alphas["one"])
    assert not np.array_equal(alphas["one"][:2000] * 2**0.5, alphas["two"])


class WideLayers(nn.Module):
    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(Group("one", 4000), kernel_size=1, name="one")(FeatureMap.of(images, widths))
        return PoolingHead(5, name="head")(Conv(Group("two", 2000), kernel_size=1, name="two")(x))


def test_networks_without_structure_trace_as_their_model(images):
    net = every_layer()
    variables, widths = variables_of(net), net.space.masked(subnet_of(net))
    ours, theirs = (
        jax.make_jaxpr(lambda v, apply=apply: apply(v, images, widths, train=False))(variables)
        for apply in (net.apply, net.model.apply)
    )
    assert str(ours) == str(theirs)


def test_full_size_needs_no_widths(images):
    net = every_layer()
    variables = {**variables_of(net), "structure": alphas_of(net)}
    plain = net.apply(variables, images, train=False)
    np.testing.assert_array_equal(plain, net.apply(variables, images, Widths(), train=False))
    largest = net.apply(variables, images, net.space.sliced(net.space.largest), train=False)
    np.testing.assert_allclose(plain, largest, rtol=1e-5)
