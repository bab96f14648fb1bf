"""A Once-for-All space from end to end: trained by BigNAS, resumed, searched, evaluated, retrained."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from helpers.ofa import OPTIONS, RESOLUTIONS
from helpers.runs import final_state, lines, small, stop_after
from helpers.trees import assert_trees_equal
from slimjax.errors import UserError
from slimjax.experiment import config_file, recipes, reload
from slimjax.experiment.build import build
from slimjax.experiment.loop import train
from slimjax.verbs import cli, search
from slimjax.verbs.search import Search
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir

BUDGETS = ("macs<=0.6", "macs<=0.3")


def tiny_run(**more) -> ConfigDict:
    """Two steps on the digits; 8x8 images, resized to 6x6 for some subnets."""
    config = small(**{"steps": 2, "checkpoint_every": 1} | more)
    config.algorithm = recipes.algorithm("bignas", num_subnets=3)
    config.model.update(name="ofa_mobilenet_v3", resolutions=RESOLUTIONS)
    config.model.options = ConfigDict(OPTIONS)
    config.data.holdout = 200
    config.scoring.images = 64
    config.evaluation.widths = (0.5, 1.0)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ofa")
    train(tiny_run(), str(directory))
    return str(directory)


def test_run_moves_and_is_measured_at_both_ends(trained):
    losses = [[line[f"{slot}/loss"] for slot in ("max", "min", "random1")] for line in lines(trained)]
    assert np.isfinite(losses).all()
    assert len(losses) == 2
    rows = json.loads(RunDir(trained).front.read_text())
    assert [row["channels"]["resolution"] for row in rows] == ["6", "8"]
    assert "stage1/block2/kernel" not in rows[0]["channels"], "the smallest has one block"
    assert rows[1]["channels"]["stage1/block2/kernel"] == "5"


@pytest.mark.slow
def test_run_that_is_killed_ends_like_one_that_is_not(trained, tmp_path):
    stop_after(tiny_run(), tmp_path, 1)
    train(tiny_run(), str(tmp_path))
    assert_trees_equal(final_state(tiny_run(), tmp_path), final_state(tiny_run(), trained))


def test_resolutions_that_do_not_suit_the_data_are_refused_by_their_field():
    config = tiny_run()
    config.model.resolutions = (6, 10)
    with pytest.raises(UserError, match=r"config\.model\.resolutions: .*8x8; got \[6, 10\]"):
        build(config)


@pytest.fixture(scope="module", params=["evolution", "bayes"])
def found(request, trained):
    """(method, rows): what a search of the run has found."""
    return request.param, search.search(Search(trained, BUDGETS, request.param, trials=24))


def test_found_subnets_are_legal_within_budget_and_load_from_their_files(found, trained):
    method, rows = found
    net = reload.experiment_of(RunDir(trained)).net
    assert {row["name"] for row in rows} == set(BUDGETS)
    for row in rows:
        path = f"{trained}/search-{method}/{row['name'].replace('<=', '-')}.json"
        subnet = architecture.load(path).subnet(net.space)
        assert net.space.check(subnet).tolist() == net.space.canonical(subnet).tolist()
        assert int(net.macs(subnet)) == row["macs"]
        assert row["macs"] <= float(row["name"].partition("<=")[2]) * float(net.macs(net.space.largest))


def test_found_subnet_is_evaluated_from_its_file(found, trained, capsys):
    method, rows = found
    file = architecture.load(f"{trained}/search-{method}/macs-0.3.json")
    assert cli.main(["evaluate", "--workdir", trained, "--subnet", json.dumps(file.channels), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    (before,) = (row for row in rows if row["name"] == "macs<=0.3")
    assert {key: row[key] for key in ("channels", "macs", "top1")} == {
        key: before[key] for key in ("channels", "macs", "top1")
    }


@pytest.mark.slow
def test_found_subnets_are_trained_from_scratch(trained, tmp_path):
    search.search(Search(trained, BUDGETS, "evolution", trials=24))
    config = config_file.load(f"{trained}/search-evolution/retrain.py", [])
    rows = train(config, str(tmp_path))
    assert {row["name"] for row in rows} == {"macs-0.6", "macs-0.3"}
    assert all(np.isfinite(row["loss"]) for row in rows)
    slots = build(config).algorithm.at(0).step.slots
    space = reload.experiment_of(RunDir(trained)).net.space
    files = [architecture.load(f"{trained}/search-evolution/{slot.name}.json") for slot in slots]
    assert [slot.subnet for slot in slots] == [tuple(file.subnet(space).tolist()) for file in files]
