"""Costs in whole tiles, and what rungs make of them."""

import dataclasses

import numpy as np
import pytest

from helpers.engines import engine_of
from helpers.nets import named
from slimjax.algorithms import usnet
from slimjax.budgets import parse_resource
from slimjax.cost.tiles import padded
from slimjax.errors import BadValue
from slimjax.experiment import recipes
from slimjax.experiment.build import build
from slimjax.nn.widths import Rounding

NET = named("resnet8", channels=(8, 16, 32))


def cost_at(count):
    """Of a network whose inner width of the last block is `count`, all else full, in tiles of 8."""
    subnet = NET.space.largest.copy()
    subnet[NET.space.index["stage3/block1"]] = count
    return padded(NET.macs, NET.space, tile=8)(subnet)


def test_widths_within_a_tile_cost_the_same_and_the_next_one_costs_a_tile_more():
    costs = [int(cost_at(count)) for count in (8, 9, 15, 16, 17)]
    assert costs[0] < costs[1] == costs[2] == costs[3] < costs[4]
    assert costs[4] - costs[3] == costs[1] - costs[0]
    assert cost_at(16) == NET.macs(
        NET.space.from_channels({**NET.space.to_channels(NET.space.largest), "stage3/block1": 16})
    )


def test_choices_are_not_padded():
    net = named("tfnas")
    subnets = np.stack([net.space.smallest, net.space.largest])
    cost = parse_resource("tile_macs").cost(net)
    rounded = subnets.copy()
    groups = len(net.space.groups)
    rounded[:, :groups] = -(-rounded[:, :groups] // 128) * 128
    assert cost(subnets).tolist() == net.macs(rounded).tolist()
    assert cost(subnets)[0] < cost(subnets)[1]


def test_rungs_in_whole_tiles_serve_all_widths_of_a_tile_with_one_program():
    """By MACs two rungs are better than one; where all widths cost the same, one does."""
    engine = engine_of(policy="auto", max_programs=6)
    by_tiles = engine_of(
        policy="auto", max_programs=6, rung_cost=parse_resource("tile_macs").cost(engine.net)
    )
    assert len(usnet(engine, num_subnets=3).at(0).step.forms.rungs) == 2
    assert len(usnet(by_tiles, num_subnets=3).at(0).step.forms.rungs) == 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("cycles", "config.engine.rung_cost: expected one of"),
        ("latency_ms", "config.engine.rung_cost: latency_ms needs a table"),
    ],
)
def test_a_cost_of_rungs_that_is_none_is_named(wanted, message):
    config = recipes.embedded("digits")
    config.engine.rung_cost = wanted
    with pytest.raises(BadValue, match=message):
        build(config)


def test_a_space_in_tiles_has_no_width_that_wastes_one():
    net = dataclasses.replace(named("resnet8", channels=(64, 160, 320)), rounding=Rounding("tile", 8))
    index = net.space.index["stage3/block1"]
    assert net.space.legal(net.space.axes[index]).tolist() == [*range(80, 128, 8), 128, 256, 320]
    subnet = net.space.largest.copy()
    for count, legal in ((96, True), (136, False), (256, True), (300, False)):
        subnet[index] = count
        if legal:
            net.space.check(subnet)
        else:
            with pytest.raises(BadValue, match="128, 256, 320"):
                net.space.check(subnet)
    assert (net.space.random(100, seed=0)[:, index] != 136).all()


def test_on_a_cpu_rungs_go_by_macs_wherever_their_network_begins():
    """No cost of whole networks is given then: scoring counts what comes after its boundaries."""
    config = recipes.embedded("digits")
    assert build(config).engine.rung_cost is None
    config.engine.rung_cost = "tile_macs"
    assert build(config).engine.rung_cost is not None
