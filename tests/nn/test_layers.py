"""Layers: ties, groups of channels, norms, dtypes. What holds for every network is in tests/models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers.nets import every_layer, named, run, variables_of
from helpers.trees import assert_trees_close
from slimjax.nn.layers import AveragePool, BatchNorm, Concatenate, Conv, FeatureMap
from slimjax.nn.widths import Group, Width, Widths


def test_inactive_channels_are_zero_after_any_function():
    group = Group("g", 4)
    x = FeatureMap(jnp.ones((1, 2, 2, 4)), group, Widths({"g": Width(4, jnp.array(3))}))
    assert x.map(jnp.cos).value[..., 3:].sum() == 0
    assert x.map(jnp.cos).value[..., :3].all()


def test_adding_groups_that_are_not_tied_names_both():
    x = FeatureMap(jnp.ones((1, 2, 2, 4)), Group("left", 4), Widths())
    y = FeatureMap(jnp.ones((1, 2, 2, 4)), Group("right", 4), Widths())
    with pytest.raises(TypeError, match=r"'left'.*'right'"):
        x + y


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


def _moments(x, **fields):
    """Mean and biased variance as a norm stores them, and what it gives."""
    norm = BatchNorm(unbiased=False, **fields)
    given = FeatureMap.of(jnp.asarray(x))
    out, new = norm.apply(norm.init(jax.random.key(0), given, True), given, True, mutable=["batch_stats"])
    return new["batch_stats"]["mean"], new["batch_stats"]["var"], out.value


@pytest.mark.parametrize("offset", [0.0, 1.0, 30.0, 33.0, 1e3, -1e3, 1e5])
def test_variance_of_one_pass_is_exact_however_far_the_mean_is(offset):
    x = (np.random.default_rng(0).normal(size=(64, 7, 7, 5)) + offset).astype(np.float32)
    mean, variance, out = _moments(x)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    assert abs(float(out.std()) - 1) < 1e-3


def test_far_means_of_single_channels_spoil_none():
    """One channel's mean is far from zero, and one has no deviation at all."""
    x = np.random.default_rng(0).normal(size=(64, 7, 7, 3)).astype(np.float32)
    x[..., 1] += 1e4
    x[..., 2] = 0.3
    _, variance, out = _moments(x)
    np.testing.assert_allclose(variance[:2], x[..., :2].astype(np.float64).var((0, 1, 2)), rtol=1e-3)
    assert 0 <= variance[2] < 1e-9
    assert np.isfinite(out).all()


def test_two_passes_differ_by_rounding_only(images):
    assert_trees_close(_moments(images), _moments(images, two_pass=True))


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e3])
def test_gradient_of_one_pass_is_that_of_two(offset):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 5, 5, 4)) + offset, jnp.float32)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)

    def gradient(norm):
        variables = norm.init(jax.random.key(0), FeatureMap.of(x), True)
        loss = lambda x: (norm.apply(variables, FeatureMap.of(x), True).value * direction).sum()  # noqa: E731
        return jax.grad(loss)(x)

    one, two = gradient(BatchNorm()), gradient(BatchNorm(two_pass=True))
    np.testing.assert_allclose(one, two, atol=(1e-3 if offset > 100 else 1e-5) * float(jnp.abs(two).max()))


@pytest.mark.parametrize("exact", [False, True])
def test_calibration_takes_both_passes_whatever_the_batch(exact):
    """At thirty deviations one pass has lost digits that two have."""
    x = (np.random.default_rng(0).normal(size=(64, 7, 7, 5)) + 30).astype(np.float32)
    given = FeatureMap(jnp.asarray(x), Group("g", 5), Widths(exact=exact))
    norm = BatchNorm(unbiased=False)
    _, new = norm.apply(norm.init(jax.random.key(0), given, True), given, True, mutable=["batch_stats"])
    error = np.abs(new["batch_stats"]["var"] / x.astype(np.float64).var((0, 1, 2)) - 1).max()
    assert (error < 2e-6) == exact


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_state(images):
    net = named("resnet8", dtype=jnp.bfloat16)
    variables = variables_of(net)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    result = run(net, variables, images, None, train=True)
    exact = run(named("resnet8"), variables, images, None, train=True)
    assert result["stats"]["batch_stats"]["stem_norm"]["mean"].dtype == jnp.float32
    assert not np.array_equal(result["logits"], exact["logits"])
    assert_trees_close(result["logits"], exact["logits"], "bfloat16")
