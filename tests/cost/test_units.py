"""Units: together they are the network; what does the same has the same key, and nothing else has."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from helpers.nets import NETS, subnet_of, variables_of
from helpers.trees import assert_trees_close
from slimjax.cost import units
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.widths import Group, Rounding
from slimjax.supernet import Supernet, named


def run_units(net, variables, subnet, images):
    """The network's result, computed unit by unit from its cut variables; units of other options are left out."""
    entries = dict(zip(net.space.index, subnet.tolist(), strict=True))
    cut, values, ops = net.cut(variables, subnet), {0: images}, net.records.ops

    def value(position):
        """What a choice among results gives is the result of the option that it takes."""
        choice = ops[position].choice
        return values[position] if choice is None else value(ops[position].inputs[entries[choice.name]])

    for unit in units.divide(net.records):
        if any(entries[when.choice.name] not in when.options for when in unit.under):
            continue
        own = {}
        for record in unit.layers:
            collections = {}
            for name in cut:
                inner = cut[name]
                for key in record.path:
                    inner = inner.get(key, {})
                collections[name] = inner
            own["/".join(record.path)] = collections
        sizes = [entries[group.name] for group in unit.axes]
        results = unit.forward(sizes)(own, [value(i) for i in unit.inputs])
        values |= dict(zip(unit.outputs, results, strict=True))
    return value(len(ops) - 1)


@pytest.mark.parametrize("name", NETS)
def test_units_one_after_the_other_are_the_network(name, images):
    net, variables = NETS[name](), variables_of(NETS[name]())
    subnet = subnet_of(net)
    assert len(units.divide(net.records)) > 1
    whole = net.model.apply(variables, images, net.space.sliced(subnet), train=False)
    assert_trees_close(run_units(net, variables, subnet, images), whole)


@pytest.mark.parametrize("name", NETS)
def test_units_say_the_shapes_of_their_arguments(name):
    net = NETS[name]()
    channels = dict(zip(net.space.index, subnet_of(net).tolist(), strict=True))
    whole = [] if net.space.choices else [units.whole(net.records)]
    for unit in [*units.divide(net.records), *whole]:
        sizes = [channels[group.name] for group in unit.axes]
        results = jax.eval_shape(unit.forward(sizes), *unit.arguments(sizes, batch=3))
        assert [r.shape[:-1] for r in results] == [(3, *unit.ops[i].size) for i in unit.outputs]


CHOICES = {
    "image_size": 16,
    "num_classes": 5,
    "options": {
        "stages": ((3, 8, 2, "swish"), (1, 12, 1, "relu")),
        "operators": ("k3e3", "k5e6se"),
        "stem": 8,
        "first": 8,
        "tail": 16,
    },
}


@pytest.mark.parametrize("depth", ["1", "3"])
def test_whole_network_of_a_path_is_the_sliced_one(depth):
    net = named("tfnas", **CHOICES)
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    variables = net.model.init(jax.random.key(0), images, train=True)
    path = {"stage1/depth": depth, "stage1/block1/operator": "k3e3", "stage1/block1/k3e3": 20}
    subnet = net.space.from_channels(path)
    unit = units.whole(net.records, net.space.options(subnet))
    cut = net.cut(variables, subnet)
    own = {
        "/".join(op.layer.path): {name: at(tree, op.layer.path) for name, tree in cut.items()}
        for op in unit.ops.values()
        if op.layer is not None
    }
    channels = net.space.to_channels(subnet)
    assert len(unit.axes) == int(depth) + 1
    (found,) = unit.forward([channels[group.name] for group in unit.axes])(own, [images])
    assert_trees_close(found, net.model.apply(cut, images, net.space.sliced(subnet), train=False))


def at(tree, path):
    """The part of a tree under a path; an empty one, if there is none."""
    for name in path:
        tree = tree.get(name, {})
    return tree


def test_a_unit_ends_where_one_feature_map_is_alive():
    keys = [unit.key for unit in units.divide(named("resnet8").records)]
    assert len(keys) == 4  # stem with the first block, two blocks, classifier
    assert keys[0] == (
        "x0:32x32x3 -> Conv3x3 3>a, BatchNorm, relu, Conv3x3 a>b, BatchNorm, relu, Conv3x3 b>a, BatchNorm, "
        "add(y7 y2), relu"
    )
    assert "PadShortcut/2 a>c(x0)" in keys[1]


def test_each_convolution_of_vgg_is_a_unit_with_the_max_pool_after_it():
    parts = units.divide(named("vgg16").records)
    assert len(parts) == 13  # stem with the second convolution, 11 more, classifier
    keys = [part.key for part in parts]
    assert keys[0].endswith("Conv3x3 a>b, BatchNorm, relu, max_pool_2x2")
    assert [key.count("max_pool_2x2") for key in keys] == [1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    assert keys[9] == keys[10] == "x0:2x2xa -> Conv3x3 a>b, BatchNorm, relu"
    hidden = named("vgg16", options={"hidden": (16, 8)})
    assert [part.key for part in units.divide(hidden.records)][-3:-1] == [
        "x0:a -> Dense+bias a>b, relu",
        "x0:a -> Dense+bias a>b, relu",
    ]


def test_blocks_that_do_the_same_share_a_key():
    parts = units.divide(named("resnet20").records)
    assert len(parts) == 10
    assert parts[1].key == parts[2].key != parts[0].key
    assert len({part.key for part in parts}) == 8
    assert parts[1].axes != parts[2].axes


def test_a_table_serves_networks_whose_norms_have_other_settings():
    norm = functools.partial(BatchNorm, affine=False, sync=False, unbiased=False)
    with_them, without = (
        {unit.key for unit in units.divide(named("resnet20", **given).records)}
        for given in ({}, {"norm": norm})
    )
    assert with_them == without


class Chain(nn.Module):
    first: object
    second: object

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(Group("a", 8), name="one")(FeatureMap.of(images, widths)).map(self.first)
        x = BatchNorm(name="norm")(x, train)
        return Conv(Group("b", 8), name="two")(x).map(self.second).value


def test_functions_without_a_name_are_told_apart_by_what_they_do():
    def keys(first, second):
        model = Chain(first, second)
        return [u.key for u in units.divide(Supernet(model, (4, 4, 3), Rounding("truncate"), 0.5).records)]

    double, triple = (lambda x: 2 * x), (lambda x: 3 * x)
    assert keys(double, triple) == keys(lambda x: 2 * x, lambda x: 3 * x)
    assert keys(double, triple) != keys(double, double)
    assert "relu" in keys(jax.nn.relu, jnp.tanh)[0]


def test_the_whole_network_is_a_unit_too(images):
    net = NETS["resnet8"]()
    unit = units.whole(net.records)
    subnet = subnet_of(net)
    sizes = [net.space.to_channels(subnet)[group.name] for group in unit.axes]
    assert sizes == subnet.tolist()
    shapes, values = unit.arguments(sizes, batch=8)
    assert set(shapes) == {"/".join(record.path) for record in net.records}
    assert values[0].shape == images.shape


def test_an_inverted_residual_stays_whole_though_its_layers_form_a_chain():
    parts = units.divide(named("us_mobilenet_v2").records)
    assert len(parts) == 16 + 3  # stem with the first block, 16 blocks, tail, classifier
    assert [group.name for group in parts[1].axes] == ["stage1", "stage2/block1", "stage2"]


class Flat(nn.Module):
    """A shortcut around two layers that are not in one module."""

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        a = Group("a", 8)
        x = Conv(a, name="stem")(FeatureMap.of(images, widths))
        x = Conv(a, name="first")(x)
        y = Conv(Group("b", 8), name="second")(x)
        x = x + Conv(a, name="third")(y)
        return Conv(Group("c", 4), name="last")(x).value


def test_nothing_is_cut_while_a_shortcut_is_alive():
    net = Supernet(Flat(), (4, 4, 3), Rounding("truncate"), 0.5)
    names = [[record.path[0] for record in unit.layers] for unit in units.divide(net.records)]
    assert names == [["stem", "first"], ["second", "third"], ["last"]]
