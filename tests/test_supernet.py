"""Resolutions of a supernet: a subnet at one is the network that is built for images of that side."""

import jax
import numpy as np
import pytest

from helpers.nets import run, variables_of
from helpers.ofa import OPTIONS, subnet_of, tiny
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.cost import counts, units
from slimjax.cost.latency import ABOUT, Entry, LatencyTable
from slimjax.errors import BadValue, UserError
from slimjax.models.ofa import OFAMobileNetV3
from slimjax.nn.choices import Choice
from slimjax.nn.widths import Rounding
from slimjax.supernet import Supernet, named


def alone(side: int, convention: str = "plain") -> Supernet:
    """The network for images of one side."""
    model = OFAMobileNetV3(num_classes=5, **OPTIONS)
    return Supernet(
        model, (side, side, 3), Rounding("make_divisible", 8), 0.5, counts.CONVENTIONS[convention]
    )


def pair(side: int) -> tuple[Supernet, np.ndarray, Supernet, np.ndarray]:
    """A subnet of the network with resolutions, and the same of that for one side only."""
    net, other = tiny(), alone(side)
    return net, subnet_of(net, resolution=str(side)), other, subnet_of(other)


def test_resolution_is_the_last_axis_and_static():
    net = tiny()
    assert net.space.axes[-1] == Choice("resolution", ("6", "8"), static=True)
    assert net.space.axes[:-1] == alone(8).space.axes
    widths = jax.jit(lambda subnet: net.space.widths(net.space.largest, subnet))(net.space.smallest)
    traced = {name: gate.index is not None for name, gate in widths.gates.items()}
    assert [name for name, is_traced in traced.items() if not is_traced] == ["resolution"]


@pytest.mark.parametrize("side", [6, 8])
def test_costs_are_those_of_the_network_for_that_side(side):
    net, subnet, other, same = pair(side)
    assert net.params(subnet) == other.params(same)
    assert net.peak_memory(subnet, batch=3) == other.peak_memory(same, batch=3)
    for convention in counts.CONVENTIONS:
        ours = counts.macs(net.records, net.space, counts.CONVENTIONS[convention])
        assert ours(subnet) == alone(side, convention).macs(same)


def test_costs_differ_between_resolutions_and_parameters_do_not():
    net = tiny()
    small, large = subnet_of(net, resolution="6"), subnet_of(net, resolution="8")
    assert net.macs(small) < net.macs(large)
    assert net.peak_memory(small) < net.peak_memory(large)
    assert net.params(small) == net.params(large)


def table_of(*nets: Supernet) -> LatencyTable:
    """A latency for each unit that nothing else has."""
    keys = sorted({unit.key for net in nets for unit in units.divide(net.records)})
    axes = {unit.key: len(unit.axes) for net in nets for unit in units.divide(net.records)}
    grids = {key: tuple(np.array([1, 64]) for _ in range(axes[key])) for key in keys}
    entries = {
        key: Entry(grids[key], np.full((2,) * axes[key], 1 + number**2 / 100), np.zeros((2,) * axes[key]))
        for number, key in enumerate(keys)
    }
    return LatencyTable(dict.fromkeys(ABOUT, "made up"), 0.25, entries)


@pytest.mark.parametrize("side", [6, 8])
def test_latency_is_that_of_the_network_for_that_side(side):
    net, subnet, other, same = pair(side)
    table = table_of(net)
    assert net.latency(table)(subnet) == pytest.approx(other.latency(table)(same))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("form", ["masked", "sliced"])
def test_images_are_resized_to_what_the_subnet_says(form, train, images):
    """Half the pixels of a side: each is a mean of its neighbours, the nearest with most weight (antialiased)."""
    net, subnet, other, same = pair(6)
    variables = variables_of(net)
    small = jax.image.resize(images, (8, 6, 6, 3), "bilinear", antialias=True)
    ours = run(net, variables, images, getattr(net.space, form)(subnet), train)
    assert_trees_close(ours, run(other, variables, np.asarray(small), other.space.sliced(same), train))


def test_images_of_their_own_size_are_left_as_they_are(images):
    net, variables = tiny(), variables_of(tiny())
    plain = net.model.apply(variables, images, train=False)
    assert_trees_equal(net.apply(variables, images, train=False), plain)
    assert_trees_equal(net.apply(variables, images, net.space.sliced(net.space.largest), train=False), plain)


@pytest.mark.parametrize("sides", [(8, 6), (6, 6, 8), (4, 6), (0, 8), (8, 10)])
def test_resolutions_that_do_not_rise_to_the_images_side_are_refused(sides):
    with pytest.raises(BadValue, match=r"^resolutions: expected rising numbers of pixels.*8x8; got \["):
        tiny(sides)


def test_network_of_a_file_has_its_resolutions():
    """JSON has lists for tuples."""
    options = {name: value for name, value in OPTIONS.items() if name != "stages"}
    options["stages"] = [list(stage) for stage in OPTIONS["stages"]]
    net = named("ofa_mobilenet_v3", image_size=8, num_classes=5, options=options, resolutions=[6, 8])
    assert net.resolutions == (6, 8)
    assert net.space.axes == tiny().space.axes
    with pytest.raises(UserError, match="resolution"):
        net.space.from_channels({"resolution": "7"})
