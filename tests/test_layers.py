"""Layers and networks: poison, masked = bucketed = sliced, ties."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_trees_close, assert_trees_equal
from flax import linen as nn
from flax import traverse_util

from slimjax import models
from slimjax.models import shufflenet
from slimjax.models.inverted_residual import InvertedResidual
from slimjax.models.mobilenet_v3 import LARGE, SMALL
from slimjax.nn import layers
from slimjax.nn.layers import (
    AveragePool,
    BatchNorm,
    Concatenate,
    Conv,
    Dense,
    DepthwiseConv,
    FeatureMap,
    GlobalPool,
    SqueezeExcite,
)
from slimjax.nn.widths import Group, Rounding, Width, Widths
from slimjax.supernet import Supernet, make_supernet


class EveryLayer(nn.Module):
    """One of each: convolution with bias, tie, depthwise, squeeze-excite, shortcut, norm, dense."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        a, b = Group("a", 8), Group("b", 16)
        x = Conv(a, use_bias=True, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = BatchNorm(name="norm1")(x, train).map(jax.nn.sigmoid)  # does not map 0 to 0
        y = DepthwiseConv(dtype=self.dtype, name="depthwise")(x).map(jnp.cos)
        y = SqueezeExcite(Group("squeeze", 4), dtype=self.dtype, name="se")(BatchNorm(name="norm2")(y, train))
        x = layers.PadShortcut(b, 2, name="shortcut")(x + y) + Conv(
            b, stride=2, dtype=self.dtype, name="down"
        )(x)
        x = GlobalPool(name="pool")(BatchNorm(name="norm3")(x, train).map(jax.nn.relu))
        return Dense(Group("logits", 5, fixed=True), dtype=self.dtype, name="head")(x).value


def every_layer() -> Supernet:
    return Supernet(EveryLayer(), (8, 8, 3), Rounding("truncate"), 0.25)


def named(name: str, **fields) -> Supernet:
    entry = models.lookup(name)
    return make_supernet(entry, entry.build(num_classes=5, **fields), (8, 8, 3))


STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 1, 2, 3))
STAGES_OF_5X5 = ((1, 48, 1, 1, 3), (3, 48, 2, 2, 5))
HEAD = {"tail": 24, "head": 16}

# Every architecture, small enough to compile in seconds.
NETS = {
    "every_layer": every_layer,
    "resnet8": lambda: named("resnet8"),
    "resnet18": lambda: named("resnet18", depth=10, channels=(4, 8, 8, 16)),
    "resnet50": lambda: named("resnet50", depth=14, channels=(4, 4, 4, 8), tied_inner=False),
    "us_mobilenet_v1": lambda: named("us_mobilenet_v1", small_images=True, multiplier=0.5),
    "us_mobilenet_v2": lambda: named("us_mobilenet_v2", small_images=True, stages=STAGES),
    "autoslim_mnasnet": lambda: named("autoslim_mnasnet", multiplier=0.5, stages=STAGES_OF_5X5),
    # Their first blocks do not expand: one is tied to the stem, one squeezes. Both activations.
    "mobilenet_v3_large": lambda: named("mobilenet_v3_large", blocks=(LARGE[0], LARGE[3], LARGE[8]), **HEAD),
    "mobilenet_v3_small": lambda: named("mobilenet_v3_small", blocks=(SMALL[0], SMALL[3]), **HEAD),
    "s_shufflenet": lambda: named("s_shufflenet", small_images=True, multiplier=0.25, units=(2, 1, 1)),
}


def subnet_of(net: Supernet) -> np.ndarray:
    """A non-uniform subnet with middle, smallest and full groups."""
    space = net.space
    ladder = [space.uniform((space.max_width + space.min_width) / 2), space.smallest, space.largest]
    return np.array([ladder[i % 3][i] for i in range(len(space))], np.int32)


def rung_of(net: Supernet) -> np.ndarray:
    """Sizes strictly between the subnet and the full network where there is room."""
    multiple = np.array([group.multiple_of for group in net.space.groups], np.int32)
    return (subnet_of(net) + net.space.largest) // 2 // multiple * multiple


def variables_of(net: Supernet):
    """Random variables in which nothing hides behind a one or a zero; drawn on the host, without a compile."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10
        return (rng.normal(size=leaf.shape) / np.sqrt(fan)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, dict(net.variable_shapes))


def run(net: Supernet, variables, images, widths, train: bool):
    """Logits, updated statistics and the gradients of a scalar of the logits."""

    def loss(weights):
        mutable = ["batch_stats"] if train else []
        joined = {**weights, "batch_stats": variables["batch_stats"]}
        logits, new = net.model.apply(joined, images, widths, train=train, mutable=mutable)
        # Linear, so that large logits do not magnify rounding.
        return (logits * slopes).mean(), (logits, new)

    slopes = np.linspace(-1, 1, 5, dtype=np.float32)[None]
    weights = {name: variables[name] for name in ("params", "affine")}
    (_, (logits, new)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights)
    return {"logits": logits, "stats": dict(new), "grads": grads}


def forms(net: Supernet, subnet: np.ndarray):
    space = net.space
    return {
        "masked": space.masked(subnet),
        "bucketed": space.bucketed(rung_of(net), subnet),
        "sliced": space.sliced(subnet),
    }


def inactive(net: Supernet, subnet: np.ndarray, variables):
    """Pytree of bool arrays: true for the entries that the subnet does not use."""
    active = net.cut(jax.tree.map(np.ones_like, variables), subnet)
    flat, result = traverse_util.flatten_dict(active), {}
    for path, full in traverse_util.flatten_dict(variables).items():
        pads = [(0, n - m) for n, m in zip(full.shape, flat[path].shape, strict=True)]
        result[path] = np.pad(np.asarray(flat[path]), pads) == 0
    return traverse_util.unflatten_dict(result)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETS)
def test_masked_bucketed_and_sliced_agree(name, train, images):
    """In float64: deep networks with kinks magnify float32's rounding to anything, and hide faults in it."""
    with jax.enable_x64(True):
        net = NETS[name]()
        net = dataclasses.replace(net, model=net.model.clone(dtype=jnp.float64))
        subnet = subnet_of(net)
        variables, images = jax.tree.map(lambda x: x.astype(np.float64), (variables_of(net), images))
        results = {form: run(net, variables, images, w, train) for form, w in forms(net, subnet).items()}
        sizes = {form: {w.size for w in ws.values()} for form, ws in forms(net, subnet).items()}
    assert sizes["masked"] != sizes["bucketed"] != sizes["sliced"], "the forms were not built differently"
    for form in ("masked", "bucketed"):
        assert_trees_close(results[form], results["sliced"], "float64")


def test_masked_bucketed_and_sliced_agree_in_float32(images):
    net = NETS["every_layer"]()
    subnet, variables = subnet_of(net), variables_of(net)
    results = {form: run(net, variables, images, w, True) for form, w in forms(net, subnet).items()}
    for form in ("masked", "bucketed"):
        assert_trees_close(results[form], results["sliced"])


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETS)
def test_poison_in_unused_entries_changes_no_bit(name, train, images):
    net = NETS[name]()
    subnet, variables = subnet_of(net), variables_of(net)
    unused = inactive(net, subnet, variables)
    poisoned = jax.tree.map(lambda x, u: jnp.where(u, jnp.nan, x), variables, unused)
    assert any(np.isnan(x).any() for x in jax.tree.leaves(poisoned))
    widths = net.space.masked(subnet)
    clean, dirty = run(net, variables, images, widths, train), run(net, poisoned, images, widths, train)
    for result in (clean, dirty):  # unused statistics are left as they were, NaN or not
        result["stats"] = jax.tree.map(
            lambda x, u: jnp.where(u, 0, x), result["stats"], {k: unused[k] for k in result["stats"]}
        )
    assert_trees_equal(dirty, clean)


@pytest.mark.parametrize("form", ["masked", "bucketed", "sliced"])
def test_unused_entries_get_exactly_zero_gradient_and_keep_their_statistics(form, images):
    net = every_layer()
    subnet, variables = subnet_of(net), variables_of(net)
    unused = inactive(net, subnet, variables)
    result = run(net, variables, images, forms(net, subnet)[form], train=True)
    for name in ("params", "affine"):
        outside = jax.tree.map(lambda g, u: np.abs(g)[u].sum(), result["grads"][name], unused[name])
        assert sum(jax.tree.leaves(outside)) == 0
    old, new = variables["batch_stats"], result["stats"]["batch_stats"]
    kept = jax.tree.map(
        lambda a, b, u: (np.asarray(a)[u] == np.asarray(b)[u]).all(), old, new, unused["batch_stats"]
    )
    assert all(jax.tree.leaves(kept))


@pytest.mark.parametrize("name", ["every_layer", "us_mobilenet_v2", "mobilenet_v3_large", "s_shufflenet"])
def test_cut_network_equals_the_supernet_bit_for_bit(name, images):
    net = NETS[name]()
    subnet, variables = subnet_of(net), variables_of(net)
    widths = net.space.sliced(subnet)
    dense = net.cut(variables, subnet)
    apply = jax.jit(lambda v: net.model.apply(v, images, widths, train=False))
    assert_trees_equal(apply(dense), apply(variables))
    weights = {name: dense[name] for name in ("params", "affine")}
    assert sum(x.size for x in jax.tree.leaves(weights)) == int(net.params(subnet))


def test_inactive_channels_are_zero_after_any_function():
    group = Group("g", 4)
    x = FeatureMap(jnp.ones((1, 2, 2, 4)), group, {"g": layers.Width(4, jnp.array(3))})
    assert x.map(jnp.cos).value[..., 3:].sum() == 0
    assert x.map(jnp.cos).value[..., :3].all()


def test_adding_groups_that_are_not_tied_names_both():
    x = FeatureMap(jnp.ones((1, 2, 2, 4)), Group("left", 4), {})
    y = FeatureMap(jnp.ones((1, 2, 2, 4)), Group("right", 4), {})
    with pytest.raises(TypeError, match=r"'left'.*'right'"):
        x + y


def test_mobilenet_v3_activations_are_those_of_the_tables():
    swish = {rows: [row.activation is jax.nn.hard_swish for row in rows] for rows in (LARGE, SMALL)}
    assert swish == {LARGE: [False] * 6 + [True] * 9, SMALL: [False] * 3 + [True] * 8}


def test_squeeze_excite_of_an_inverted_residual_is_gated_by_a_hard_sigmoid(images):
    group, squeeze = Group("g", 8), Group("s", 4, fixed=True)
    block = InvertedResidual(None, group, 3, 1, jax.nn.relu, squeeze, BatchNorm, jnp.float32)
    x = FeatureMap.of(jnp.asarray(images))
    variables = block.init(jax.random.key(0), x, True)
    gate = variables["params"]["squeeze_excite"]["expand"]
    gate["kernel"] *= 0

    def gated(bias):  # the gate scales everything after it
        gate["bias"] = jnp.full(3, bias)
        return block.apply(variables, x, False).value

    assert_trees_close(gated(-1.0), gated(3.0) * (2 / 6))


def test_concatenated_leading_slices_are_a_leading_slice():
    group, widths = Group("g", 4), Widths({"g": Width(2)})
    full = [FeatureMap(jnp.arange(4.0 * n)[None] + 10 * n, group.times(n), Widths()) for n in (1, 3)]
    narrow = [FeatureMap(x.value[:, : 2 * n], x.group, widths) for x, n in zip(full, (1, 3), strict=True)]
    joined, part = Concatenate()(*full), Concatenate()(*narrow)
    assert joined.group == part.group == group.times(4)
    assert joined.value.tolist() == [[10, 30, 31, 32, 11, 33, 34, 35, 12, 36, 37, 38, 13, 39, 40, 41]]
    assert part.value.tolist() == joined.value[:, :8].tolist()


def test_concatenating_groups_that_are_not_tied_names_both():
    x, y = (FeatureMap(jnp.ones((1, 4)), Group(name, 4), Widths()) for name in ("left", "right"))
    with pytest.raises(TypeError, match=r"'left'.*'right'"):
        Concatenate()(x, y)


@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_convolution_is_the_usual_one_of_reordered_channels(stride, images):
    """Ours are interleaved; `feature_group_count` wants each group's channels one after the other."""
    sources, target = Group("in", 12, multiple_of=3), Group("out", 15, multiple_of=3)
    value = np.random.default_rng(0).normal(size=(2, 6, 6, 12)).astype(np.float32)
    conv = Conv(target, 3, stride, conv_groups=3)
    ours, variables = conv.init_with_output(jax.random.key(0), FeatureMap(value, sources, Widths()))
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 4, 15)
    into, out = (np.argsort(np.arange(n) % 3, kind="stable") for n in (12, 15))
    theirs = jax.lax.conv_general_dilated(
        value[..., into],
        kernel[..., out],
        (stride, stride),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    assert_trees_close(ours.value[..., out], theirs)


def test_shuffled_convolution_is_that_of_a_permuted_input():
    sources, target = Group("in", 12, multiple_of=3), Group("out", 6, multiple_of=3)
    value = np.random.default_rng(0).normal(size=(2, 4, 4, 12)).astype(np.float32)
    x = FeatureMap(value, sources, Widths())
    ours, variables = Conv(target, 1, conv_groups=3, shuffled=True).init_with_output(jax.random.key(0), x)
    # In the i-th triple, position j takes the channel of group j - i.
    order = [3 * i + (j - i) % 3 for i in range(4) for j in range(3)]
    plain = Conv(target, 1, conv_groups=3)
    kernel = variables["params"]["kernel"]
    theirs = plain.apply({"params": {"kernel": kernel}}, x.with_value(value[..., order]))
    assert_trees_close(ours.value, theirs.value)


def test_shufflenet_unit_mixes_all_conv_groups():
    """Every conv group of a unit's output depends on every one of its input."""
    outer, inner = Group("outer", 12, multiple_of=3), Group("inner", 9, multiple_of=3)
    unit = shufflenet.Unit(inner, outer, 1, shufflenet.CONV_GROUPS, BatchNorm, jnp.float32)
    value = jnp.asarray(np.random.default_rng(0).normal(size=(16, 1, 1, 12)), jnp.float32)
    x = FeatureMap(value, outer, Widths())
    variables = unit.init(jax.random.key(0), x, True)

    def output(value):
        return unit.apply(variables, x.with_value(value), False).value.sum((0, 1, 2))

    slopes = np.abs(jax.jacobian(output)(x.value)).reshape(4, 3, 16, 4, 3).max((0, 2, 3))
    assert (slopes > 0).all(), "[output group, input group]"


def test_average_pool_is_the_mean_of_nine_with_zeros_around():
    value = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    pooled = AveragePool().apply({}, FeatureMap(jnp.asarray(value), Group("g", 1), Widths())).value
    assert pooled.shape == (1, 3, 3, 1)
    np.testing.assert_allclose(pooled[0, :2, :2, 0], [[12 / 9, 27 / 9], [63 / 9, 12]], rtol=1e-6)


def test_variables_of_another_network_are_refused(images):
    net = every_layer()
    variables = variables_of(net)
    variables["params"]["stem"]["kernel"] = jnp.ones((3, 3, 3, 5))
    with pytest.raises(ValueError, match="stem/kernel: axis 3 has 5 entries; expected 8"):
        net.model.apply(variables, images, train=False)


def test_batch_norm_refuses_to_collect_statistics_outside_training(images):
    net = every_layer()
    with pytest.raises(ValueError, match="collected in training mode only"):
        net.model.apply(variables_of(net), images, train=False, mutable=["batch_stats"])


def test_batch_norm_without_statistics_says_calibrate(images):
    net = every_layer()
    variables = variables_of(net)
    del variables["batch_stats"]
    with pytest.raises(ValueError, match="calibrate it first"):
        net.model.apply(variables, images, train=False)


def test_batch_norm_equals_flax_in_training(images):
    x = FeatureMap.of(jnp.asarray(images))
    ours, _ = BatchNorm().init_with_output(jax.random.key(0), x, True)
    flax = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
    theirs, _ = flax.init_with_output(jax.random.key(0), x.value)
    assert_trees_close(ours.value, theirs)


@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_stores_the_named_estimator_of_variance(unbiased, images):
    norm = BatchNorm(unbiased=unbiased)
    x = FeatureMap.of(jnp.asarray(images))
    variables = norm.init(jax.random.key(0), x, True)
    _, new = norm.apply(variables, x, True, mutable=["batch_stats"])
    want = images.reshape(-1, 3).var(0, ddof=int(unbiased))
    np.testing.assert_allclose(new["batch_stats"]["var"], want, rtol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_state(images):
    net = named("resnet8", dtype=jnp.bfloat16)
    variables = variables_of(net)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    result = run(net, variables, images, None, train=True)
    exact = run(named("resnet8"), variables, images, None, train=True)
    assert result["stats"]["batch_stats"]["stem_norm"]["mean"].dtype == jnp.float32
    assert not np.array_equal(result["logits"], exact["logits"])
    assert_trees_close(result["logits"], exact["logits"], "bfloat16")
