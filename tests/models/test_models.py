"""Conformance of every network: poison, masked = bucketed = sliced, cut = sliced."""

import jax
import numpy as np
import pytest

from helpers.nets import NETS, every_layer, forms, in_float64, inactive, run, subnet_of, variables_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.supernet import named


@pytest.mark.parametrize(
    ("name", "activation", "count"),
    [
        ("us_mobilenet_v1", "relu6", 1 + 13 * 2),
        ("s_mobilenet_v1", "relu6", 1 + 13 * 2),
        ("autoslim_mobilenet_v1", "relu6", 1 + 13 * 2),
        ("us_mobilenet_v2", "relu6", 1 + 1 + 16 * 2 + 1),
        ("autoslim_mnasnet", "relu6", 1 + 1 + 16 * 2 + 1),
        ("mnasnet", "relu", 1 + 1 + 16 * 2 + 1),
        ("s_resnet50", "relu", 1 + 16 * 3),
        ("s_shufflenet", "relu", 1 + 16 * 2),
        ("vgg16", "relu", 13),
    ],
)
def test_activations_are_those_of_the_released_networks(name, activation, count):
    """After the stem, each convolution of a block but linear ones, and the tail. MNasNet's own paper has ReLU."""
    names = [op.name for op in named(name).records.ops]
    assert [name for name in names if name.startswith("relu")] == [activation] * count


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETS)
def test_masked_bucketed_and_sliced_agree(name, train, images):
    """In float64: deep networks with kinks magnify float32's rounding to anything, and hide faults in it."""
    with jax.enable_x64(True):
        net, variables, images = in_float64(name, images)
        subnet = subnet_of(net)
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
    poisoned = jax.tree.map(lambda x, u: np.where(u, np.float32(np.nan), x), variables, unused)
    assert any(np.isnan(x).any() for x in jax.tree.leaves(poisoned))
    widths = net.space.masked(subnet)
    clean, dirty = run(net, variables, images, widths, train), run(net, poisoned, images, widths, train)
    for result in (clean, dirty):  # unused statistics are left as they were, NaN or not
        result["stats"] = jax.tree.map(
            lambda x, u: np.where(u, np.float32(0), x),
            result["stats"],
            {k: unused[k] for k in result["stats"]},
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


@pytest.mark.parametrize(
    "name", ["every_layer", "us_mobilenet_v2", "mobilenet_v3_large", "s_shufflenet", "vgg16_hidden"]
)
def test_cut_network_equals_the_supernet_bit_for_bit(name, images):
    net = NETS[name]()
    subnet, variables = subnet_of(net), variables_of(net)
    widths = net.space.sliced(subnet)
    dense = net.cut(variables, subnet)
    apply = jax.jit(lambda v: net.model.apply(v, images, widths, train=False))
    assert_trees_equal(apply(dense), apply(variables))
    weights = {name: dense[name] for name in ("params", "affine")}
    assert sum(x.size for x in jax.tree.leaves(weights)) == int(net.params(subnet))
