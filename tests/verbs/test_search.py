"""`slimjax search`: what it finds fits, is written down, can be trained again, and survives being stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.runs import short_run, small, untrained
from slimjax.budgets import parse_budget
from slimjax.errors import UserError
from slimjax.experiment import config_file, recipes, reload
from slimjax.experiment.build import Experiment, build
from slimjax.experiment.config import complete
from slimjax.experiment.measure import Prober
from slimjax.nn import filters
from slimjax.search import trials
from slimjax.verbs import cli, options, search
from slimjax.verbs.search import METHODS, Search
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return short_run(tmp_path_factory.mktemp("trained"))


BUDGETS = ("macs<=0.5", "macs<=0.25")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_found_subnets_fit_their_budgets_and_are_written_down(trained, method):
    rows = search.search(Search(trained, BUDGETS, method, trials=30))
    full = reload.experiment_of(RunDir(trained)).net
    most = float(full.macs(full.space.largest))
    assert {row["name"] for row in rows} == set(BUDGETS)
    for row in rows:
        share = float(row["name"].partition("<=")[2])
        assert row["macs"] <= share * most
        found = architecture.load(f"{trained}/search-{method}/{row['name'].replace('<=', '-')}.json")
        assert found.channels == row["channels"]
        assert found.costs["macs"] == row["macs"]
        assert found.how["method"] == method
        assert found.accuracy["top1"] == row["top1"]


@pytest.mark.parametrize("importance", sorted(filters.IMPORTANCES))
def test_channels_are_sorted_before_the_search_if_that_is_asked_for(trained, importance, monkeypatch):
    """What is scored and evaluated is the reordered network: narrow ones lose their least important channels."""
    evaluated, real = [], search.evaluate
    monkeypatch.setattr(search, "evaluate", lambda *given: evaluated.append(given[1]) or real(*given))
    search.search(Search(trained, ("macs<=0.5",), "coarse_to_fine", trials=8))
    (row,) = search.search(Search(trained, ("macs<=0.5",), "coarse_to_fine", trials=8, reorder=importance))
    net = reload.experiment_of(RunDir(trained)).net
    plain, sorted_ = (filters.IMPORTANCES[importance](net.records, s.variables()) for s in evaluated)
    for group in (
        "stage1/block1",
        "stage2/block1",
        "stage3/block1",
    ):  # which no other group meets by position
        assert (np.diff(sorted_[group]) <= 0).all()
        assert not (np.diff(plain[group]) <= 0).all()
    found = architecture.load(f"{trained}/search-coarse_to_fine/macs-0.5.json")
    assert (found.how["reorder"], found.accuracy["top1"]) == (importance, row["top1"])
    assert len(list(Path(trained).glob(f"search-coarse_to_fine/*{importance}*.jsonl"))) == 1


def test_found_subnets_can_be_trained_as_one_snet(trained):
    search.search(Search(trained, BUDGETS, "history"))
    path = f"{trained}/search-history/retrain.py"
    assert path in architecture.load(f"{trained}/search-history/macs-0.5.json").retrain
    config = config_file.load(path, [])
    again = recipes.retrain(f"{trained}/config.json", config.algorithm.architectures, "own")
    complete(again)
    assert config == again
    experiment = build(config)
    assert [slot.name for slot in experiment.algorithm.at(0).step.slots] == ["macs-0.5", "macs-0.25"]
    for slot in experiment.algorithm.at(0).step.slots:
        found = architecture.load(f"{trained}/search-history/{slot.name}.json")
        assert slot.subnet == tuple(found.subnet(experiment.net.space).tolist())


def test_a_stopped_search_goes_on(trained, monkeypatch):
    """Stopped at the fourth request for scores, it ends with the log of a search that was not."""
    unbroken = Search(trained, ("macs<=0.4",), "bayes", trials=25, seed=1)
    rows = search.search(unbroken)
    log = f"{trained}/search-bayes/trials-step24-holdout64-seed1.jsonl"
    whole = trials.read(log)
    assert len(whole) == 50
    real, calls = Prober.at, []

    def failing(self, *arguments):
        score = real(self, *arguments)

        def counted(subnets):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return score(subnets)

        return counted

    with open(log, "w"):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(Prober, "at", failing)
        with pytest.raises(KeyboardInterrupt):
            search.search(unbroken)
    assert search.search(unbroken) == rows
    again = trials.read(log)
    assert [(t.trial, t.state, t.channels, t.score) for t in again] == [
        (t.trial, t.state, t.channels, t.score) for t in whole
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": ("macs<0.5",)}, "expected COST<=NUMBER"),
        ({"budgets": ("flops<=0.5",)}, "expected one of macs, tile_macs, params"),
        ({"budgets": ("macs<=0.5", "params<=0.5")}, "all budgets of one search are on one cost"),
        ({"budgets": ("latency_ms<=3",)}, "latency_ms needs a table"),
        ({"budgets": ("macs<=0.001",), "method": "evolution"}, "budget: expected a cost of at least"),
        ({"budgets": ("macs<=0.001",), "method": "history"}, "none within"),
        ({"trials": 0}, "trials: expected a whole number of at least 1, got 0"),
        ({"images": 0}, "images: expected a whole number of at least 2, got 0"),
        ({"images": 1000}, "expected at most 200 .in the split holdout"),
    ],
)
def test_what_cannot_be_searched_is_refused(trained, changes, message):
    with pytest.raises(UserError, match=message):
        search.search(Search(**{"directory": trained, "budgets": BUDGETS, "trials": 30, **changes}))


@pytest.fixture
def held_nothing_out(trained, tmp_path):
    """The workdir of a run that has trained on all images, and scored on some of them."""
    directory = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("search-*"))
    config = json.loads((directory / "config.json").read_text())
    config["data"]["holdout"], config["scoring"]["split"] = 0, "train"
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_a_run_that_held_nothing_out_is_searched_on_its_training_images(held_nothing_out):
    wanted = Search(str(held_nothing_out), ("macs<=0.9",), "greedy", split="train")
    assert [row["name"] for row in search.search(wanted)] == ["macs<=0.9"]
    assert (held_nothing_out / "search-greedy/trials-step24-train64-seed0.jsonl").exists()


def test_a_history_needs_no_images_to_score_on(held_nothing_out):
    wanted = Search(str(held_nothing_out), ("macs<=0.9",), "history")
    assert [row["name"] for row in search.search(wanted)] == ["macs<=0.9"]


def test_a_run_that_held_nothing_out_is_searched_so_only_if_asked_for(held_nothing_out):
    with pytest.raises(UserError, match=r"has held no training images out\. Search it with --split train"):
        search.search(Search(str(held_nothing_out), ("macs<=0.9",), "greedy"))


def test_a_network_that_runs_at_its_switches_only_is_refused(tmp_path):
    config = small(steps=1)
    config.algorithm = recipes.algorithm("snet", widths=(0.5, 1.0))
    config.data.holdout = config.scoring.images = 64
    config.evaluation.widths = (1.0,)
    untrained(config, tmp_path)
    with pytest.raises(UserError, match="private to its switches"):
        search.search(Search(str(tmp_path), BUDGETS, trials=30))


def test_budgets_keep_every_digit_and_read_as_they_are_written():
    for text in ("macs<=0.5", "params<=123456789", "macs<=0.123456789", "latency_ms<=3.2@a@b.json"):
        assert str(parse_budget(text)) == text


def test_images_are_read_once_for_a_whole_search(trained, monkeypatch):
    real, calls = Experiment.scoring_batch, []
    monkeypatch.setattr(Experiment, "scoring_batch", lambda *a: calls.append(1) or real(*a))
    search.search(Search(trained, ("macs<=0.5",), "greedy", seed=7))
    assert len(calls) == 1


def test_search_answers_with_one_line_of_json(trained, capsys):
    code = cli.main(
        ["search", "--workdir", trained, "--budget", "macs<=0.5", "--method", "history", "--json"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(lines) == 1
    assert json.loads(lines[0])


def test_the_command_line_knows_all_methods():
    assert sorted(options.METHODS) == sorted(METHODS)
    assert sorted(options.IMPORTANCES) == sorted(filters.IMPORTANCES)
