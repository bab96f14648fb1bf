"""`slimjax bench elasticity`: what it says of random architectures, by a table that is made up."""

import json

import numpy as np
import pytest

from helpers.commands import refusal
from helpers.tables import save_table
from slimjax.bench import elasticity
from slimjax.cost import latency
from slimjax.profiling import profile
from slimjax.supernet import named
from slimjax.verbs import cli

NETWORK = {
    "image_size": 16,
    "num_classes": 5,
    "options": {"stages": [[2, 8, 2, "relu"], [2, 16, 1, "swish"]], "operators": ["k3e3", "k5e6"]},
}


@pytest.fixture(scope="module")
def net():
    return named("tfnas", **NETWORK)


@pytest.fixture(scope="module")
def table(net, tmp_path_factory) -> str:
    return save_table(tmp_path_factory.mktemp("table") / "t.json", net, "tfnas", **NETWORK)


@pytest.fixture(scope="module")
def answer(table):
    return elasticity.run(12, seed=0, table=table)


def test_no_architecture_ends_above_its_target_and_passes_bring_it_nearer(answer):
    for part in (answer, *answer["targets"]):
        assert part["above_target"] == 0
        assert part["mean_error_percent"] <= part["global_error_percent"] <= part["first_error_percent"]
        assert 0 < part["mean_error_percent"] <= part["max_error_percent"]
        assert 0 < part["ms_each"] <= part["ms_slowest"]


def test_all_targets_together_are_their_mean(answer):
    counts = [part["feasible"] for part in answer["targets"]]
    errors = [part["mean_error_percent"] for part in answer["targets"]]
    assert sum(counts) == answer["feasible"]
    assert answer["mean_error_percent"] == pytest.approx(np.average(errors, weights=counts))
    assert answer["max_error_percent"] == max(part["max_error_percent"] for part in answer["targets"])


def test_architectures_that_cannot_cost_the_target_are_left_out(net, table):
    cost, space = net.latency(latency.load(table)), net.space
    rows = elasticity.architectures(space, 12, seed=0)
    there = space.exists(rows)[:, : len(space.groups)]
    groups = space.largest[: len(space.groups)]
    assert (rows[:, : len(space.groups)] == np.where(there, groups * 3 // 4, groups // 2)).all()
    ends = []
    for share in (0.5, 1.0):
        edges = rows.copy()
        edges[:, : len(space.groups)] = share * groups
        ends.append(cost(edges))
    target = float(np.median(cost(rows)))
    feasible = int(((ends[0] <= target) & (target <= ends[1])).sum())
    found = elasticity.run(12, seed=0, table=table, targets=[target, 1e6])
    assert 0 < feasible < 12
    assert [(part["target_ms"], part["feasible"]) for part in found["targets"]] == [(target, feasible)]


def test_without_a_table_a_roofline_is_made(table, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(profile, "run", lambda *a, **_: asked.append(a[0]) or (latency.load(table), {}))
    assert cli.main(["bench", "elasticity", "--subnets", "3", "--cache", "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architectures"] == 3
    assert (asked[0].network, asked[0].target, asked[0].cache) == ({"name": "tfnas"}, "roofline:v100", "here")


def test_targets_that_nothing_reaches_are_refused(table, capsys):
    command = ["bench", "elasticity", "--table", table, "--subnets", "3", "--targets", "1e6"]
    assert "--targets: none of 3 architectures can cost 1000000.0 ms" in refusal(capsys, *command)
