"""Records and costs of any network, checked against XLA's own count of the sliced network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers.nets import NETS, named, subnet_of, variables_of
from slimjax.cost import counts
from slimjax.nn import roles, trace
from slimjax.nn.layers import Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding


def test_trace_orders_groups_by_appearance_and_leaves_fixed_ones_out():
    assert list(NETS["every_layer"]().space.index) == ["a", "squeeze", "b"]


def test_trace_lists_every_array_of_the_network_once():
    net = NETS["every_layer"]()
    declared = {(a.collection, *r.path, a.name) for r in net.records for a in r.arrays}
    leaves = jax.tree_util.tree_flatten_with_path(dict(net.variable_shapes))[0]
    assert declared == {tuple(key.key for key in path) for path, _ in leaves}


def test_one_name_with_two_sizes_is_refused():
    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, images, widths=None, train=False):
            x = Conv(Group("g", 4), name="first")(FeatureMap.of(images, widths))
            return Conv(Group("g", 8), name="second")(x).value

    with pytest.raises(ValueError, match="layer second: group 'g'"):
        trace.trace(Wrong(), (8, 8, 3))


@pytest.mark.parametrize("name", NETS)
def test_params_equal_the_size_of_the_cut_network(name):
    net = NETS[name]()
    variables = variables_of(net)
    for subnet in (net.space.largest, subnet_of(net), net.space.smallest):
        cut = net.cut({k: variables[k] for k in ("params", "affine")}, subnet)
        assert int(net.params(subnet)) == sum(x.size for x in jax.tree.leaves(cut))


@pytest.mark.parametrize("name", ["resnet8", "us_mobilenet_v2", "mobilenet_v3_large"])
def test_macs_agree_with_the_compilers_count_of_the_sliced_network(name):
    net = dataclasses.replace(named(name), image_shape=(128, 128, 3))
    subnet = subnet_of(net)
    shapes = {k: net.variable_shapes[k] for k in ("params", "affine", "batch_stats")}

    def flops(subnet):
        widths = net.space.sliced(subnet, portable=True)  # packed ones multiply zeros, which XLA counts
        forward = lambda v, x: net.model.apply(v, x, widths, train=False)  # noqa: E731
        image = jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)
        return jax.jit(forward).lower(shapes, image).cost_analysis()["flops"]

    # XLA also counts norms and activations, but no multiplication with padding: on large images, the
    # difference of two subnets leaves the convolutions, to a few per cent.
    ours = 2 * int(net.macs(net.space.largest) - net.macs(subnet))
    assert ours == pytest.approx(flops(net.space.largest) - flops(subnet), rel=0.08)


def test_costs_are_vectorised_over_subnets():
    net = NETS["us_mobilenet_v2"]()
    subnets = np.stack([net.space.uniform(w) for w in (0.35, 0.5, 0.75, 1.0)]).reshape(2, 2, -1)
    assert net.macs(subnets).shape == (2, 2)
    for index in np.ndindex(2, 2):
        assert net.macs(subnets)[index] == net.macs(subnets[index])
        assert net.params(subnets)[index] == net.params(subnets[index])


def test_pooling_adds_one_mac_per_input_element():
    net = NETS["resnet8"]()
    without, with_pooling = (
        counts.macs(net.records, net.space, counts.CONVENTIONS[name]) for name in ("plain", "slimmable")
    )
    assert with_pooling(net.space.largest) - without(net.space.largest) == 2 * 2 * 64


def test_truncation_gives_the_published_dimensions_of_the_space():
    from slimjax import models

    for depth, groups in ((20, 12), (32, 18), (44, 24), (56, 30)):
        entry = models.lookup(f"resnet{depth}")
        records = trace.trace(entry.build(), (32, 32, 3))
        assert len(roles.space(records, Rounding("truncate"), 0.42).groups) == groups
