"""`slimjax search --budget 'latency_ms<=X@table.json'`: what it finds is within X by the table, and says so."""

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.runs import short_run
from helpers.tables import save_table
from slimjax.cost import latency
from slimjax.errors import UserError
from slimjax.experiment import reload
from slimjax.search import trials
from slimjax.supernet import Supernet, named
from slimjax.verbs import search
from slimjax.verbs.search import Search
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return short_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def net(trained) -> Supernet:
    return reload.experiment_of(RunDir(trained)).net


@pytest.fixture(scope="module")
def table(net, tmp_path_factory) -> str:
    return save_table(tmp_path_factory.mktemp("table") / "t.json", net)


def ends(net, table):
    cost = net.latency(latency.load(table))
    return float(cost(net.space.smallest)), float(cost(net.space.largest))


@pytest.mark.parametrize("method", ["bayes", "elastic", "greedy", "history"])
def test_found_subnets_are_within_their_milliseconds(trained, net, table, method):
    least, most = ends(net, table)
    limits = [f"{least + share * (most - least):.4g}" for share in (0.1, 0.5)]
    budgets = tuple(f"latency_ms<={limit}@{table}" for limit in limits)
    rows = search.search(Search(trained, budgets, method, trials=30))
    cost = net.latency(latency.load(table))
    assert [row["name"] for row in rows] == list(budgets)
    for row, limit in zip(rows, limits, strict=True):
        found = architecture.load(f"{trained}/search-{method}/latency_ms-{limit}.json")
        assert float(cost(found.subnet(net.space))) <= float(limit)
        assert found.channels == row["channels"]


def widths_alone(*_):
    """In place of `Prober.at`: the wider, the better."""
    return lambda subnets: 1 / subnets.sum(1)


def test_a_better_subnet_that_takes_longer_is_passed_over(trained, net, table, monkeypatch):
    monkeypatch.setattr(search.Prober, "at", widths_alone)
    least, most = ends(net, table)
    limit = f"{(least + most) / 2:.4g}"
    wanted = Search(trained, (f"latency_ms<={limit}@{table}",), "bayes", trials=30, seed=3)
    (row,) = search.search(wanted)
    log = trials.latest(trials.read(f"{trained}/search-bayes/trials-step24-holdout64-seed3.jsonl"))
    ms = {number: trial.cost for number, trial in log.items()}
    best = min((n for n in log if ms[n] <= float(limit)), key=lambda n: log[n].score)
    assert row["channels"] == log[best].channels
    assert any(log[n].score < log[best].score for n in log), "none is better: nothing to test"


def test_a_better_visited_subnet_that_takes_longer_is_passed_over(net, table):
    widths = (0.25, 0.5, 1.0)
    visited = [
        trials.Trial(n, "scored", 1, net.space.to_channels(net.space.uniform(w)), score=1 / w)
        for n, w in enumerate(widths)
    ]
    algorithm = SimpleNamespace(trials=lambda arrays, step: visited)
    run = SimpleNamespace(net=net, algorithm=algorithm), SimpleNamespace(algorithm={}, step=1)
    cost = net.latency(latency.load(table))
    for width in widths:
        limit = float(cost(net.space.uniform(width)))
        found = search._visited(*run, cost, limit, "budget")
        np.testing.assert_array_equal(found, net.space.uniform(width))


def test_the_architecture_file_has_the_latency_and_the_network(trained, net, table):
    search.search(Search(trained, (f"latency_ms<=100@{table}",), "history"))
    found = architecture.load(f"{trained}/search-history/latency_ms-100.json")
    expected = net.latency(latency.load(table))(found.subnet(net.space))
    assert found.costs["latency_ms"] == pytest.approx(float(expected))
    again = named(**found.network)
    assert again.space == net.space
    assert again.records.layers == net.records.layers


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("bayes", "budget: expected a cost of at least {least:.10g}, got 0.01"),
        ("greedy", "budget: expected a cost above {least:.10g}, got 0.01"),
        ("elastic", "budget: expected a cost of at least {least:.10g}, got 0.01"),
        ("evolution", "budget: expected a cost of at least {least:.10g}, got 0.01"),
        ("history", "none within latency_ms<=0.01@"),
    ],
)
def test_milliseconds_below_the_smallest_subnets_are_refused(trained, net, table, method, message):
    with pytest.raises(UserError) as refused:
        search.search(Search(trained, (f"latency_ms<=0.01@{table}",), method))
    assert message.format(least=ends(net, table)[0]) in str(refused.value)


def test_a_table_of_another_network_is_refused_with_what_to_profile(trained, tmp_path):
    other = save_table(tmp_path / "other.json", named("resnet20"), "resnet20")
    with pytest.raises(UserError, match=r"lacks \d+ units of this network(.|\n)*slimjax profile"):
        search.search(Search(trained, (f"latency_ms<=1@{other}",)))
