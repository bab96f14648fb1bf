"""A search that knows the steps of latency finds subnets that waste nothing."""

import json

import numpy as np

from slimjax import supernet
from slimjax.bench import staircase
from slimjax.cost import units
from slimjax.cost.latency import ABOUT, Entry, LatencyTable
from slimjax.profiling.profile import choose_grids
from slimjax.verbs import cli

NETWORK = {"name": "resnet8", "options": {"channels": (16, 32, 64)}}


def in_steps(path, step):
    """A table whose latencies rise with the product of a unit's channels, each in whole steps."""
    net = supernet.named(**NETWORK)
    entries = {}
    for key, grid in choose_grids(units.divide(net.records), net, points=1_000_000).items():
        rounded = [-(-axis // step) * step for axis in grid]
        product = np.prod(np.stack(np.broadcast_arrays(*np.ix_(*rounded))), 0) if grid else np.array(0.0)
        entries[key] = Entry(grid, 0.01 + 1e-4 * product, np.zeros(product.shape))
    network = json.loads(json.dumps(NETWORK))
    about = dict.fromkeys(ABOUT, "made up") | {"network": network, "versions": {}}
    LatencyTable(about, 0.05, entries).save(path)
    return str(path)


def test_a_search_by_milliseconds_uses_the_steps(tmp_path):
    """In steps of eight of 16 to 64 channels it saves much; where there are none, it has nothing to find."""
    coarse, smooth = (
        staircase.run(in_steps(tmp_path / f"{step}.json", step), trials=30, seeds=1) for step in (8, 1)
    )
    assert coarse["ratio_to_macs"] < 0.97
    assert coarse["ratio_to_macs"] < smooth["ratio_to_macs"]
    assert coarse["ratio_to_uniform"] < 1


def test_the_command_prints_its_answer(tmp_path, capsys):
    table = in_steps(tmp_path / "t.json", 8)
    given = ["--trials", "24", "--seeds", "1", "--cost-model", "gp"]
    assert cli.main(["bench", "staircase", "--table", table, *given, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["trials"] == 24
    assert [set(found) for found in answer["by_seed"]] == [{"ratio_to_macs", "ratio_to_uniform"}]
