"""`slimjax search --method elastic`: one architecture, scaled to each budget, with nothing scored."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from helpers.commands import refusal
from helpers.runs import small, untrained
from slimjax.errors import UserError
from slimjax.experiment import reload
from slimjax.nn import filters
from slimjax.search.elastic import elastic
from slimjax.supernet import Supernet
from slimjax.verbs import search
from slimjax.verbs.search import Search
from slimjax.workdir import architecture
from slimjax.workdir.architecture import Architecture
from slimjax.workdir.rundir import RunDir

MIXED = {
    "stages": ((2, 8, 2, "relu"),),
    "operators": ("k3e3", "k3e6se"),
    "stem_stride": 1,
    "stem": 8,
    "first": 8,
    "tail": 16,
}
CHOSEN = {"stage1/depth": "2", "stage1/block1/operator": "k3e3", "stage1/block2/operator": "k3e6se"}


def run_of(directory, **model) -> str:
    """A run that holds no images out."""
    config = small(steps=1)
    for name, value in model.items():
        config.model[name] = value
    config.data.holdout = 0
    config.evaluation.widths = (1.0,)
    return untrained(config, directory)


def net_of(run) -> Supernet:
    return reload.experiment_of(RunDir(run)).net


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("mixed"), name="tfnas", options=ConfigDict(MIXED))


@pytest.fixture(scope="module")
def chosen(mixed, tmp_path_factory) -> str:
    """An architecture of the mixed network."""
    path, space = tmp_path_factory.mktemp("chosen") / "arch.json", net_of(mixed).space
    channels = space.to_channels(space.from_channels(CHOSEN))
    architecture.write(path, Architecture({"name": "tfnas"}, channels, {}))
    return str(path)


def test_a_network_without_choices_is_scaled_from_its_largest_subnet(plain):
    budgets = ("macs<=0.5", "macs<=0.3")
    rows = search.search(Search(plain, budgets, "elastic"))
    net = net_of(plain)
    most = float(net.macs(net.space.largest))
    assert {row["name"] for row in rows} == set(budgets)
    for row in rows:
        share = float(row["name"].partition("<=")[2])
        found = elastic(net.space, net.macs, net.space.largest, share * most, net.space.stages)
        assert row["channels"] == net.space.to_channels(found)
        assert row["macs"] <= share * most
    assert architecture.load(f"{plain}/search-elastic/macs-0.5.json").how == {
        "method": "elastic",
        "budget": "macs<=0.5",
    }


def test_an_architecture_keeps_its_choices_and_its_strongest_channels(mixed, chosen, monkeypatch):
    evaluated, real = [], search.evaluate
    monkeypatch.setattr(search, "evaluate", lambda *given: evaluated.append(given[1]) or real(*given))
    wanted = Search(mixed, ("macs<=0.55",), "elastic", reorder="depthwise", start=chosen)
    (row,) = search.search(wanted)
    net = net_of(mixed)
    assert {name: row["channels"][name] for name in CHOSEN} == CHOSEN
    assert row["macs"] <= 0.55 * net.macs(net.space.largest)
    assert (
        architecture.load(chosen).subnet(net.space).tolist()
        != net.space.from_channels(row["channels"]).tolist()
    )
    norms = filters.IMPORTANCES["depthwise"](net.records, evaluated[0].variables())
    assert all((np.diff(norm) <= 0).all() for norm in norms.values())
    found = architecture.load(f"{mixed}/search-elastic/macs-0.55.json")
    assert found.channels == row["channels"]
    assert (found.how["from"], found.how["reorder"]) == (chosen, "depthwise")


def test_a_network_with_choices_asks_for_an_architecture(mixed, capsys, monkeypatch):
    monkeypatch.setattr("slimjax.verbs.search.start_jax", lambda: None)
    with pytest.raises(UserError, match=r"--from: expected the file of an architecture .*stage1/depth"):
        search.search(Search(mixed, ("macs<=0.55",), "elastic"))
    command = ["search", "--workdir", mixed, "--method", "elastic", "--budget", "macs<=0.5", "--from"]
    assert "gone.json" in refusal(capsys, *command, "gone.json")


def test_a_budget_that_the_architecture_cannot_meet_is_refused(mixed, chosen):
    net = net_of(mixed)
    subnet = architecture.load(chosen).subnet(net.space)
    moves = net.space.exists(subnet) & (np.arange(len(net.space)) < len(net.space.groups))
    least = float(net.macs(np.where(moves, net.space.lowest, subnet)))
    assert least > net.macs(net.space.lowest) + 2
    wanted = Search(mixed, (f"macs<={least - 1:.0f}",), "elastic", start=chosen)
    with pytest.raises(UserError, match=f"budget: expected a cost of at least {least:.10g}, got "):
        search.search(wanted)


def test_an_architecture_of_another_network_is_refused(plain, chosen):
    with pytest.raises(UserError, match="unknown groups"):
        search.search(Search(plain, ("macs<=0.5",), "elastic", start=chosen))


def test_a_file_of_a_found_subnet_can_be_scaled_again(plain):
    """From below, so it grows."""
    search.search(Search(plain, ("macs<=0.3",), "elastic"))
    small_one = f"{plain}/search-elastic/macs-0.3.json"
    (row,) = search.search(Search(plain, ("macs<=0.6",), "elastic", start=small_one))
    before = architecture.load(small_one).channels
    assert all(row["channels"][name] >= n for name, n in before.items())
    assert row["channels"] != before
