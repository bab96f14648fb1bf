"""TF-NAS's network: costs to the digit, and the space of its paper."""

import functools

import numpy as np
import pytest

from helpers.nets import NETS
from slimjax.errors import UserError
from slimjax.models import tfnas
from slimjax.nn import trace
from slimjax.supernet import named

# Every block of one operator, at three quarters of all channels and at all: parameters, millions of MACs.
UNIFORM = {
    "k3e3": (3_257_928, 238.5505, 3_777_376, 303.9714),
    "k3e6": (4_816_272, 434.8132, 5_855_168, 565.6549),
    "k5e3": (3_340_488, 257.1031, 3_887_456, 328.7082),
    "k5e6": (4_981_392, 471.9183, 6_075_328, 615.1285),
    "k3e3se": (4_641_448, 239.9340, 5_621_496, 305.8155),
    "k3e6se": (10_336_592, 440.3335, 13_214_448, 573.0142),
    "k5e3se": (4_724_008, 258.4866, 5_731_576, 330.5523),
    "k5e6se": (10_501_712, 477.4386, 13_434_608, 622.4877),
}


@functools.cache
def net():
    """Traced once, which takes seconds."""
    return named("tfnas")


def uniform(operator: str, share: float) -> np.ndarray:
    space = net().space
    channels = {group.name: int(group.channels * share) for group in space.groups}
    return space.from_channels({**channels, **{choice.name: operator for choice in operators()}})


def operators():
    return [choice for choice in net().space.choices if choice.name.endswith("/operator")]


@pytest.mark.parametrize("operator", UNIFORM)
def test_uniform_networks_cost_what_the_released_code_counts(operator):
    params, macs, most_params, most_macs = UNIFORM[operator]
    begin, most = (uniform(operator, share) for share in (0.75, 1.0))
    assert (int(net().params(begin)), int(net().params(most))) == (params, most_params)
    for subnet, millions in ((begin, macs), (most, most_macs)):
        assert round(int(net().macs(subnet)) / 1e6, 4) == millions


def test_the_published_network_costs_what_is_published():
    subnet = net().space.from_channels(tfnas.VARIANTS["A"])
    assert int(net().params(subnet)) == 8_757_527
    assert round(int(net().macs(subnet)) / 1e6, 4) == 456.7477
    words = net().space.to_channels(subnet)
    assert dict(tfnas.VARIANTS["A"]) == words
    assert [words[f"stage{n}/depth"] for n in range(1, 6)] == ["2", "3", "4", "4", "4"]


def test_space_is_that_of_the_paper():
    """Eight operators in each of 18 blocks, depths of five stages; all 3.448e16 paths; widths from half of the most."""
    space = net().space
    assert len(operators()) == 18
    assert len(space.groups) == 18 * 8
    assert {choice.options for choice in operators()} == {tfnas.OPERATORS}
    assert not any(choice.ordered for choice in operators())
    depths = [choice for choice in space.choices if choice.name.endswith("/depth")]
    assert [len(choice) for choice in depths] == [2, 3, 4, 4, 4]
    paths = 8.0 * np.prod([sum(8.0**depth for depth in range(1, len(choice) + 1)) for choice in depths])
    assert f"{paths:.3e}" == "3.448e+16"
    inputs = {"stage1/block1": 16, "stage1/block2": 24, "stage3/block1": 40, "stage6/block1": 192}
    for name, channels in inputs.items():
        for operator, room in (("k3e3", 4), ("k5e6se", 8)):
            group = space.groups[space.index[f"{name}/{operator}"]]
            assert group.channels == room * channels
            assert space.legal(group).tolist() == list(range(room * channels // 2, room * channels + 1))


def test_a_network_without_sinks_gets_shallower_by_an_operator_that_does_nothing():
    """Of every block but a stage's first: it costs nothing, and there are no depths."""
    small = NETS["tfnas_skip"]()
    space = small.space
    assert [choice.name for choice in space.choices] == ["stage1/block1/operator", "stage1/block2/operator"]
    assert ["skip" in choice.options for choice in space.choices] == [False, True]
    shallow = space.from_channels({"stage1/block2/operator": "skip", "stage1/block1/operator": "k3e3"})
    assert {name for name in space.to_channels(shallow) if "block2" in name} == {"stage1/block2/operator"}
    truncated = named(
        "tfnas",
        num_classes=5,
        image_size=8,
        options={**_options(small.model), "sinks": True},
    )
    assert int(small.macs(space.largest)) == int(truncated.macs(truncated.space.largest))
    other = truncated.space.from_channels({"stage1/depth": "1", "stage1/block1/operator": "k3e3"})
    for cost in ("params", "macs", "peak_memory"):
        assert int(getattr(small, cost)(shallow)) == int(getattr(truncated, cost)(other)), cost


def _options(model):
    return {
        name: getattr(model, name) for name in ("stages", "operators", "stem", "first", "tail", "stem_stride")
    }


def test_operators_that_there_are_not_are_refused():
    with pytest.raises(UserError, match=r"operators: expected some of k3e3, k3e6, .*, got 'k7e3'"):
        trace.trace(named("tfnas", options={"operators": ["k3e3", "k7e3"]}).model, (8, 8, 3))
    with pytest.raises(UserError, match=r"stage1/block1/operator.*got 'k7e3'"):
        net().space.from_channels({"stage1/block1/operator": "k7e3"})
