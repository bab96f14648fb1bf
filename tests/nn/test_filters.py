"""Norms of filters by the channel that they make, against sums written out."""

import numpy as np

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
