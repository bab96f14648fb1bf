"""Norms of filters by the channel that they make, against sums written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.nets import every_layer, named, variables_of
from slimjax.nn import filters


def test_norm_of_a_residual_stream_is_that_of_all_filters_into_it():
    """The stem and the second convolution of stage 1's block write to the first stream."""
    net = named("resnet8", channels=(4, 4, 4))
    params = variables_of(net)["params"]
    kernels = params["stem"]["kernel"], params["stage1_block1"]["conv2"]["kernel"]
    want = np.sqrt(sum((kernel**2).sum((0, 1, 2)) for kernel in kernels))
    np.testing.assert_allclose(filters.norms(net.records, params)["stage1"], want, rtol=1e-6)
    want = sum(np.abs(kernel).sum((0, 1, 2)) for kernel in kernels)
    np.testing.assert_allclose(filters.norms(net.records, params, power=1)["stage1"], want, rtol=1e-6)


def test_depthwise_filters_count_and_those_of_a_gate_do_not():
    """Group "a": the stem's and the depthwise filters; its squeeze-excite has a dense layer into it, too."""
    net = every_layer()
    params = variables_of(net)["params"]
    kernels = params["stem"]["kernel"], params["depthwise"]["depthwise_kernel"]
    want = np.sqrt(sum((kernel**2).sum((0, 1, 2)) for kernel in kernels))
    np.testing.assert_allclose(filters.norms(net.records, params)["a"], want, rtol=1e-6)


def test_depthwise_filters_alone_say_how_important_their_channels_are():
    """Group "a" has them; "b" and "squeeze" have not."""
    net = every_layer()
    variables = variables_of(net)
    found = filters.IMPORTANCES["depthwise"](net.records, variables)
    kernel = variables["params"]["depthwise"]["depthwise_kernel"]
    np.testing.assert_allclose(found["a"], np.abs(kernel).sum((0, 1, 2)), rtol=1e-6)
    others = filters.IMPORTANCES["l1"](net.records, variables)
    assert others.keys() == found.keys()
    assert (np.asarray(others["a"]) > np.asarray(found["a"])).all()
    np.testing.assert_array_equal(found["b"], others["b"])


def test_every_slimmable_group_has_a_norm_for_each_channel():
    for name, fields in {"us_mobilenet_v2": {}, "s_shufflenet": {"units": (2, 1, 1)}}.items():
        net = named(name, small_images=True, **fields)
        params = variables_of(net)["params"]
        found = {group: len(norm) for group, norm in filters.norms(net.records, params).items()}
        assert found == {group.name: group.channels for group in net.space.groups}


def test_gammas_of_a_channel_are_taken_together():
    net = named("resnet8", channels=(4, 4, 4))
    affine = variables_of(net)["affine"]
    one, other = affine["stem_norm"]["scale"], affine["stage1_block1"]["norm2"]["scale"]
    np.testing.assert_allclose(filters.gammas(net.records, affine)["stage1"], np.hypot(one, other), rtol=1e-6)


def lasso(clip, weights):
    """Of one group of channels with two weights each, and the gradient."""
    penalty = lambda w: filters.group_lasso({"g": filters._root((w**2).sum(0))}, clip)  # noqa: E731
    return jax.value_and_grad(penalty)(jnp.asarray(weights, jnp.float32))


# Three channels (columns) of norms 3, 5 and 10, whose mean is 6.
WEIGHTS = [[3.0, 3.0, 6.0], [0.0, 4.0, 8.0]]
UNIT = np.array([[1.0, 0.6, 0.6], [0.0, 0.8, 0.8]])


@pytest.mark.parametrize(
    ("clip", "value", "below"),
    [
        (math.inf, 3 + 5 + 10, [1, 1, 1]),
        (2.0, 3 + 5 + 10, [1, 1, 1]),  # a threshold of 12
        (1.0, 3 + 5 + 6, [1, 1, 0]),
        (0.75, 3 + 4.5 + 4.5, [1, 0, 0]),
        (0.5, 3 + 3 + 3, [0, 0, 0]),  # on the threshold is not below it
    ],
)
def test_clipped_lasso_has_a_gradient_below_the_threshold_only(clip, value, below):
    penalty, gradient = lasso(clip, WEIGHTS)
    assert float(penalty) == pytest.approx(value)
    np.testing.assert_allclose(gradient, UNIT * below, rtol=1e-6)


@pytest.mark.parametrize("clip", [1.0, math.inf])
def test_channels_that_are_zero_have_no_gradient(clip):
    penalty, gradient = lasso(clip, np.zeros((2, 3)))
    assert (float(penalty), np.abs(gradient).max()) == (0, 0)
