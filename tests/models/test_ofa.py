"""Once-for-All's MobileNet V3: what it costs, that all forms of a subnet agree, and which subnets there are."""

import itertools

import jax
import numpy as np
import pytest

from helpers.nets import run, variables_of
from helpers.ofa import subnet_of, tiny
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.supernet import named
from slimjax.vectors import WidthVectors


def by_hand(kernel: int, expansion: int, depth: int, size: int = 224, stem: int = 16) -> tuple[int, int]:
    """MACs of convolutions and dense layers, and parameters, of a network with one option everywhere."""
    side = size // 2
    macs, params = side**2 * 27 * stem, 27 * stem + 2 * stem
    macs += side**2 * stem * (9 + stem)
    params += stem * (9 + stem) + 2 * 2 * stem
    inner = stem
    for channels, stride, squeezes, _ in (
        (24, 2, 0, 0),
        (40, 2, 1, 0),
        (80, 2, 0, 0),
        (112, 1, 1, 0),
        (160, 2, 1, 0),
    ):
        for block in range(depth):
            wide, before = expansion * inner, side
            side = side // stride if block == 0 else side
            # Of the largest expansion, to the next multiple of 8 unless the nearest loses less than a tenth.
            squeezed = {144: 40, 240: 64, 480: 120, 672: 168, 960: 240}[6 * inner] if squeezes else 0
            kernels = wide * (inner * before**2 + (kernel**2 + channels) * side**2)
            macs += kernels + 2 * wide * squeezed
            params += wide * (inner + kernel**2 + channels) + 2 * (2 * wide + channels)
            params += (2 * wide * squeezed + wide + squeezed) * bool(squeezes)
            inner = channels
    tail, head = 960, 1280
    macs += side**2 * inner * tail + tail * head + head * 1000
    return macs, params + tail * inner + 2 * tail + tail * head + head + head * 1000 + 1000


@pytest.fixture(scope="module")
def whole():
    return named("ofa_mobilenet_v3")


@pytest.mark.parametrize("options", list(itertools.product((3, 5, 7), (3, 4, 6), (2, 3, 4))))
def test_every_uniform_network_costs_what_its_layers_do(whole, options):
    kernel, expansion, depth = options
    space = whole.space
    channels = {group.name: group.channels // 6 * expansion for group in space.groups}
    chosen = {choice.name: str(depth if "depth" in choice.name else kernel) for choice in space.choices}
    subnet = space.from_channels(channels | chosen)
    assert (int(whole.macs(subnet)), int(whole.params(subnet))) == by_hand(*options)


def test_network_has_five_stages_of_four_blocks(whole):
    """A width and a kernel for each block, and a depth for each stage; 566 million multiply-adds at full size."""
    assert round(int(whole.macs(whole.space.largest)) / 1e6) == 566
    assert len(whole.space.groups) == 20
    assert len(whole.space.choices) == 20 + 5


def test_elastic_widths_make_the_stages_groups():
    names = {group.name for group in tiny(elastic_widths=True).space.groups}
    assert names - {group.name for group in tiny().space.groups} == {"stage1", "stage2"}


@pytest.mark.parametrize("elastic", [False, True], ids=["fixed", "elastic"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("side", ["6", "8"])
def test_masked_bucketed_and_sliced_agree(side, train, elastic, images):
    net = tiny(elastic_widths=elastic)
    widths = {"stage1": 8, "stage2": 8} if elastic else {}
    subnet = subnet_of(net, resolution=side, **widths)
    rung = net.space.covering(np.asarray(subnet))
    rung[net.space.index["stage1/block1"]] = 8  # between the subnet and full size
    rung[net.space.index["stage2/block1/kernel"]] = 0
    space, variables = net.space, variables_of(net)
    forms = {
        "masked": space.masked(subnet),
        "bucketed": space.bucketed(rung, subnet),
        "sliced": space.sliced(subnet),
    }
    results = {form: run(net, variables, images, w, train) for form, w in forms.items()}
    for form in ("masked", "bucketed"):
        assert_trees_close(results[form], results["sliced"])


def test_cut_network_equals_the_supernet_bit_for_bit_and_holds_nothing_else(images):
    net = tiny()
    subnet, variables = subnet_of(net, resolution="6"), variables_of(net)
    widths, dense = net.space.sliced(subnet), net.cut(variables, subnet)
    apply = jax.jit(lambda v: net.apply(v, images, widths, train=False))
    assert_trees_equal(apply(dense), apply(variables))
    weights = jax.tree.leaves({name: dense[name] for name in ("params", "affine")})
    assert sum(leaf.size for leaf in weights) == int(net.params(subnet))


def test_smaller_kernel_is_the_middle_of_the_larger(images):
    """The border of the 5x5 kernel set to zero gives the same network as the choice of 3."""
    net = tiny(())
    large, variables = subnet_of(net, **{"stage1/block1/kernel": "5"}), variables_of(net)
    small = subnet_of(net, **{"stage1/block1/kernel": "3"})
    block = variables["params"]["stage1"]["block_1"]["depthwise"]
    results = {}
    for name, subnet in (("three", small), ("five", large)):
        results[name] = net.apply(variables, images, net.space.sliced(subnet), train=False)
    border = np.ones((5, 5, 1, 1), bool)
    border[1:-1, 1:-1] = False
    block["depthwise_kernel"] = np.where(border, 0, block["depthwise_kernel"])
    zeroed = net.apply(variables, images, net.space.sliced(large), train=False)
    assert_trees_close(zeroed, results["three"])
    assert not np.allclose(results["five"], results["three"], rtol=1e-2)


def test_each_option_is_drawn_equally_often():
    net = tiny(expansions=(2, 3, 4), kernels=(1, 3, 5))
    fractions = np.random.default_rng(0).uniform(0.5, 1, (3000, len(net.space)))
    subnets = WidthVectors(net).subnets(fractions)
    exists = net.space.exists(subnets)
    for axis, column, there in zip(net.space.axes, subnets.T, exists.T, strict=True):
        _, counts = np.unique(column[there], return_counts=True)
        assert len(counts) == len(net.space.legal(axis))
        np.testing.assert_allclose(counts / counts.sum(), 1 / len(counts), atol=0.04)


def test_a_block_that_does_not_exist_costs_and_changes_nothing(images):
    net = tiny()
    space, variables = net.space, variables_of(net)
    one, other = (subnet_of(net, **{"stage2/block2": count}) for count in (16, 24))
    assert one.tolist() == other.tolist(), "canonical"
    assert "stage2/block2" not in space.to_channels(one)
    raw = one.copy()
    raw[space.index["stage2/block2"]] = 24
    assert net.macs(raw) == net.macs(one)
    results = [net.apply(variables, images, space.masked(s), train=False) for s in (raw, one)]
    assert_trees_equal(*results)
