"""The architecture file: what is written is loaded, and what is wrong with another is said."""

import dataclasses
import json
import math
from types import MappingProxyType

import pytest

from slimjax.errors import UserError
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.workdir import architecture
from slimjax.workdir.architecture import Architecture

SPACE = Space((Group("a", 32), Group("b", 64)), Rounding("multiple", 8), 0.25)
FOUND = Architecture(
    network={"name": "resnet20", "num_classes": 10},
    channels={"a": 16, "b": 24},
    costs={"macs": 1_500_000, "latency_ms": 0.75},
    accuracy={"top1": 0.5},
    how={"search": "greedy", "targets": [1e6]},
    retrain="slimjax train --config c.py",
)


@pytest.fixture
def path(tmp_path):
    architecture.write(tmp_path / "new" / "a.json", FOUND)
    return tmp_path / "new" / "a.json"


def test_what_is_written_is_loaded(path):
    assert architecture.load(path) == FOUND


def test_several_files_have_the_names_of_the_files_or_their_paths(path):
    same, other = path.parent / "b.json", path.parent / "c" / "a.json"
    architecture.write(same, FOUND)
    architecture.write(other, FOUND)
    assert list(architecture.load_all([str(path), str(same)])) == ["a", "b"]
    assert list(architecture.load_all([str(path), str(other)])) == [str(path), str(other)]


def test_files_of_several_networks_are_refused_together(path):
    other = path.parent / "b.json"
    architecture.write(other, dataclasses.replace(FOUND, network={"name": "resnet8"}))
    with pytest.raises(UserError, match=r"b\.json: its network is not that of .*a\.json"):
        architecture.load_all([str(path), str(other)])


def test_file_has_the_documented_keys(path):
    keys = ["schema", "network", "channels", "costs", "accuracy", "how", "retrain"]
    assert list(json.loads(path.read_text())) == keys
    assert json.loads(path.read_text())["schema"] == 1


def test_frozen_channels_and_no_accuracy_are_written(tmp_path):
    architecture.write(tmp_path / "a.json", Architecture({}, MappingProxyType({"a": 8}), {}))
    assert architecture.load(tmp_path / "a.json") == Architecture({}, {"a": 8}, {}, None)


def test_subnet_has_the_channels_in_the_order_of_the_space():
    assert FOUND.subnet(SPACE).tolist() == [16, 24]


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"a": 16}, "lacks the channels of groups b"),
        ({"a": 16, "b": 24, "c": 8}, "unknown groups"),
        ({"a": 16, "b": 25}, "illegal channel counts: b: 25"),
    ],
)
def test_channels_of_another_space_are_refused(channels, message):
    with pytest.raises(UserError, match=message):
        Architecture({}, channels, {}).subnet(SPACE)


def edit(path, **changes) -> None:
    body = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in body.items() if v != "absent"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"schema": "absent"}, "expected schema 1, got None"),
        ({"channels": "absent", "how": "absent"}, "lacks channels, how"),
        ({"colour": 1}, "unknown keys colour; expected accuracy, channels"),
        ({"channels": [16, 24]}, "channels: expected an object"),
        ({"channels": {"a": 16.5}}, "channels.a: expected a whole number of at least 1, got 16.5"),
        ({"channels": {"a": 0}}, "channels.a: expected a whole number of at least 1, got 0"),
        ({"channels": {"a": True}}, "channels.a: expected a whole number of at least 1, got True"),
        ({"costs": {"macs": "many"}}, "costs.macs: expected a finite number, got 'many'"),
        ({"costs": {"macs": math.nan}}, "NaN is not a finite number"),
        ({"accuracy": {"top1": None}}, "accuracy.top1: expected a finite number, got None"),
        ({"accuracy": 0.5}, "accuracy: expected an object"),
        ({"network": "resnet20"}, "network: expected an object"),
        ({"retrain": None}, "retrain: expected a command"),
    ],
)
def test_a_file_of_another_form_says_what_is_wrong_where_and_what_to_do(path, changes, message):
    edit(path, **changes)
    with pytest.raises(UserError, match=rf"architecture .*a\.json: .*{message}.*Mend the file"):
        architecture.load(path)


def test_a_file_that_is_not_there_or_cut_off_is_refused(path):
    with pytest.raises(UserError, match="no such file"):
        architecture.load(path.parent / "b.json")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match="not a whole JSON file"):
        architecture.load(path)


def test_costs_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"costs\.macs: expected a finite number, got inf"):
        Architecture({}, {"a": 16}, {"macs": math.inf})


def test_what_is_not_json_is_not_written_and_the_old_file_stays(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        architecture.write(path, dataclasses.replace(FOUND, how={"deep": [math.nan]}))
    assert architecture.load(path) == FOUND
