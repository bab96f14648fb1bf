"""`slimjax profile`, `cost --table`, `bench table`: from a network to a table, and whether to trust it."""

import importlib.util
import json

import numpy as np
import pytest

from slimjax.bench.table import run as run_bench
from slimjax.cost import latency, units
from slimjax.errors import UserError
from slimjax.profiling import child, meters, profile, sweep
from slimjax.profiling.chips import PEAKS
from slimjax.supernet import named
from slimjax.verbs import cli
from slimjax.workdir import architecture

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install -e '.[tpu-compile]'",
)
NETWORK = ["--model", "resnet8", "--image-size", "8"]


def run(capsys, *arguments):
    code = cli.main([*arguments, "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(lines) == 1
    return json.loads(lines[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def table(folder):
    """A roofline table: no timing, so quick."""
    out = str(folder / "roofline.json")
    command = ["profile", *NETWORK, "--target", "roofline:a100", "--points", "3", "--batch", "4"]
    assert cli.main([*command, "--cache", str(folder / "cache"), "--out", out, "--json"]) == 0
    return out


def test_a_table_says_what_it_is_and_has_every_unit(table):
    found, net = latency.load(table), named("resnet8", image_size=8)
    assert found.about["method"] == "roofline"
    assert found.about["device"] == "a100, roofline of its published peaks"
    assert set(found.entries) == {unit.key for unit in units.divide(net.records)}
    subnets = net.space.random(50, seed=0)
    assert (net.latency(found)(subnets) > 0).all()


def test_a_roofline_is_flops_or_bytes_over_the_peak(table):
    """A wide convolution of few pixels is as long as its weights take to read, and no longer."""
    unit = units.divide(named("resnet8").records)[-1]  # the classifier
    reading = meters.roofline(PEAKS["a100"], batch=1)(unit, [64])
    bytes_at_least = 4 * (64 * 10 + 64 + 10 + 10)
    assert reading["median_ms"] >= 1000 * bytes_at_least / PEAKS["a100"].bandwidth
    assert reading["median_ms"] <= 3000 * bytes_at_least / PEAKS["a100"].bandwidth


def test_a_second_profile_asks_nothing_again(folder, table, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "_attempt", lambda *_: pytest.fail("asked again"))
    command = ["profile", *NETWORK, "--target", "roofline:a100", "--points", "3", "--batch", "4"]
    command += ["--cache", str(folder / "cache"), "--out", str(folder / "again.json"), "--json"]
    assert cli.main(command) == 0
    found = capsys.readouterr()
    again = json.loads(found.out)
    assert again["fresh"] == 0
    assert again["reused"] >= again["entries"] > 20
    assert "readings are from the cache: read " in found.err
    first, second = (
        json.loads(path.read_text()) for path in (folder / "roofline.json", folder / "again.json")
    )
    assert first["units"] == second["units"]


def test_inner_points_lie_in_the_middle_of_steps_of_four_where_any_count_is_legal():
    assert profile._spread(np.arange(16, 65), 5).tolist() == [16, 26, 38, 50, 64]
    assert profile._spread(np.arange(4, 17), 4).tolist() == [4, 6, 10, 16]
    assert profile._spread(np.arange(8, 65, 8), 5).tolist() == [8, 24, 32, 48, 64]


def test_interpolation_between_middles_of_steps_is_unbiased():
    """A latency that rises in steps of four channels, read on a grid, is right on average."""
    legal = np.arange(16, 65)
    steps = -(-legal // 4) * 4.0
    grid = profile._spread(legal, 5)
    read = np.interp(legal, grid, steps[np.searchsorted(legal, grid)])
    assert abs((read / steps - 1).mean()) < 0.01


def test_another_batch_has_readings_of_its_own(folder, table):
    network = {"name": "resnet8", "image_size": 8}
    paths = {
        profile.ProfileRequest(network, "roofline:a100", batch, cache=str(folder))
        .readings({"device": "x"}, {})
        ._path
        for batch in (4, 8)
    }
    assert len(paths) == 2


def test_cost_answers_milliseconds_by_the_table(table, capsys):
    answer = run(capsys, "cost", *NETWORK, "--width", "0.5", "--table", table)
    net = named("resnet8", image_size=8)
    expected = net.latency(latency.load(table))(net.space.uniform(0.5))
    assert answer["latency_ms"] == pytest.approx(float(expected), abs=1e-6)
    assert answer["latency_method"] == "roofline"


def test_cost_by_a_table_of_another_network_names_what_to_profile(table, capsys):
    assert cli.main(["cost", "--model", "resnet20", "--table", table]) == 2
    assert "slimjax profile --model" in capsys.readouterr().err


def test_a_table_is_compared_with_whole_networks(table, folder, capsys):
    answer = run(
        capsys, "bench", "table", "--table", table, "--subnets", "6", "--cache", str(folder / "cache")
    )
    assert len(answer["whole_ms"]) == len(answer["summed_ms"]) == 6
    errors = np.abs(np.array(answer["summed_ms"]) / answer["whole_ms"] - 1)
    assert answer["mape"] == pytest.approx(errors.mean())
    ranks = [np.argsort(np.argsort(answer[name])) for name in ("summed_ms", "whole_ms")]
    assert answer["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert 0.5 < answer["bias"] < 2


def test_a_table_of_another_device_is_not_compared(table, folder, capsys):
    found = latency.load(table)
    found.about["device"] = "a faster one"
    found.save(folder / "moved.json")
    assert cli.main(["bench", "table", "--table", str(folder / "moved.json"), "--subnets", "2"]) == 2
    assert "is of a faster one; this is a100" in capsys.readouterr().err


def test_the_page_shows_the_staircase(table, folder, capsys):
    assert "latency" in (folder / "roofline.html").read_text().lower()
    run(capsys, "report", "--tables", table, table, "--out", str(folder / "both.html"))
    page = (folder / "both.html").read_text()
    assert page.count("<svg") == 2
    assert "roofline:a100" in page


def test_a_page_escapes_what_a_table_says(folder, table, capsys):
    found = latency.load(table)
    found.about["target"] = found.about["device"] = "<script>$x$"
    found.save(folder / "odd.json")
    run(capsys, "report", "--tables", str(folder / "odd.json"), "--out", str(folder / "odd.html"))
    page = (folder / "odd.html").read_text()
    assert "<script>" not in page
    assert page.count("&lt;script&gt;$x$") >= 2


def test_measuring_the_cpu_in_a_child_process_gives_a_table(folder, capsys):
    command = ["profile", *NETWORK, "--target", "cpu", "--points", "3", "--batch", "2", "--repeats", "1"]
    answer = run(capsys, *command, "--cache", str(folder / "cpu"), "--out", str(folder / "cpu.json"))
    assert answer["method"] == "measured"
    assert latency.load(folder / "cpu.json").overhead_ms > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "tpu-v9"], "--target: expected one of cpu, gpu, tpu, tpu-v4"),
        (["--target", "gpu"], "no gpu is attached here"),
        (["--target", "cpu", "--points", "2"], "--points: expected a whole number of at least 3, got 2"),
        (["--target", "cpu", "--batch", "0"], "--batch: expected a whole number of at least 1, got 0"),
        (["--target", "cpu", "--timeout", "0"], "--timeout: expected a number above 0, got 0.0"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_one_message(arguments, message, folder, capsys):
    command = ["profile", *NETWORK, "--out", str(folder / "none.json"), *arguments]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err


def test_grids_cover_the_space_on_its_steps():
    net = named("us_mobilenet_v2")
    parts = units.divide(net.records)
    grids = profile.choose_grids(parts, net, points=5)
    for part in parts:
        for group, axis in zip(part.axes, grids[part.key], strict=True):
            index = net.space.index[group.name]
            assert axis[0] <= net.space.lowest[index]
            assert axis[-1] >= group.channels
            assert (axis[1:-1] % 8 == 0).all()
    assert {len(axis) for axis in grids[parts[3].key]} <= {3, 4, 5}


def test_grids_have_both_sides_of_the_edges_of_tiles():
    net = named("resnet18", num_classes=10, image_size=32)
    parts = units.divide(net.records)
    grids = profile.choose_grids(parts, net, points=5, tile=128)
    found = {}
    for part in parts:
        for group, axis in zip(part.axes, grids[part.key], strict=True):
            legal = net.space.legal(group)
            found[group.channels] = axis.tolist()
            assert set(axis.tolist()) <= set(legal.tolist())
            assert len(axis) <= 2 * 5 * 5
    assert found[512] == [215, 256, 257, 384, 385, 512]
    assert found[256] == [107, 128, 129, 256]
    plain = profile.choose_grids(parts, net, points=5)
    assert all(
        len(axis) < 30 and (axis.tolist() == other.tolist() or axis[-1] > 128)
        for key in grids
        for axis, other in zip(grids[key], plain[key], strict=True)
    )


def test_costing_many_subnets_is_timed_by_cost(capsys):
    answer = run(capsys, "bench", "costs", "--model", "resnet8", "--subnets", "1000")
    assert answer["seconds_by_cost"].keys() == {"macs", "params", "peak_memory"}
    assert answer["seconds"] == pytest.approx(sum(answer["seconds_by_cost"].values()))


@pytest.mark.parametrize("name", ["resnet20", "us_mobilenet_v2", "s_shufflenet"])
def test_grids_have_counts_that_are_legal(name):
    net = named(name)
    parts = units.divide(net.records)
    grids = profile.choose_grids(parts, net, points=5)
    for part in parts:
        shared = [other for other in parts if other.key == part.key]
        for i, axis in enumerate(grids[part.key]):
            legal = set().union(*(net.space.legal(other.axes[i]).tolist() for other in shared))
            assert set(axis.tolist()) <= legal


@pytest.mark.parametrize("name", ["us_mobilenet_v2", "s_shufflenet"])
def test_random_subnets_are_legal_and_reach_everywhere(name):
    space = named(name).space
    rows = space.random(400, seed=0)
    for row in rows:
        space.check(row)
    assert (rows.min(0) == space.lowest).all()
    assert (rows.max(0) == space.largest).all()


def test_a_table_without_its_network_is_refused(folder, table):
    found = latency.load(table)
    del found.about["network"]
    found.save(folder / "nameless.json")
    with pytest.raises(UserError, match="does not say its network"):
        latency.load(folder / "nameless.json")


STAGES = [[2, 8, 2, "relu"]]
CHOICES = {
    "name": "tfnas",
    "image_size": 16,
    "num_classes": 5,
    "options": {"stages": STAGES, "operators": ["k3e3", "k5e6se"], "stem": 8, "first": 8, "tail": 16},
}


@pytest.fixture(scope="module")
def chosen(folder):
    """A roofline table of a network with choices."""
    request = profile.ProfileRequest(
        CHOICES, "roofline:a100", 4, processes=1, cache=str(folder / "choices"), timeout_seconds=600.0
    )
    found, origin = profile.run(request, points=3)
    found.save(folder / "choices.json")
    return found, origin


def test_a_network_with_choices_has_an_entry_for_each_operator_at_each_count(chosen):
    """Two blocks of two operators at nine counts, what is not searched, what calling costs, and the picture."""
    found, origin = chosen
    sizes = sorted(entry.median_ms.size for entry in found.entries.values())
    assert sizes == [1, 1, 1, 9, 9, 9, 9]
    assert origin["fresh"] + origin["reused"] >= sum(sizes) + 1
    assert any(entry.median_ms.shape == (9,) for key, entry in found.entries.items() if "Depthwise" in key)
    assert found.staircase.unit in found.entries


def test_a_table_with_choices_is_compared_with_the_paths_of_random_subnets(chosen, folder):
    """Paths of all depths: the sum and the whole rise together, or one of them has another path."""
    sweep_options = {"processes": 1, "cache": str(folder / "choices"), "timeout_seconds": 600.0}
    answer = run_bench(str(folder / "choices.json"), 6, seed=1, **sweep_options)
    rows = named(**CHOICES).space.random(6, seed=1)
    depths = rows[:, named(**CHOICES).space.index["stage1/depth"]]
    assert set(depths.tolist()) == {0, 1}
    assert len(set(answer["whole_ms"])) == len(np.unique(rows, axis=0))
    assert answer["spearman"] > 0.9
    assert 0.5 < answer["bias"] < 2


def test_a_table_is_compared_with_networks_that_are_named(chosen, folder):
    """What was compared with at random is measured again by name: the same sums."""
    sweep_options = {"processes": 1, "cache": str(folder / "choices"), "timeout_seconds": 600.0}
    net = named(**CHOICES)
    rows, files = net.space.random(6, seed=1)[:2], []
    for number, row in enumerate(rows):
        files.append(str(folder / f"named{number}.json"))
        architecture.write(files[-1], architecture.Architecture(CHOICES, net.space.to_channels(row), {}))
    answer = run_bench(str(folder / "choices.json"), 40, architectures=files, **sweep_options)
    assert answer["subnets"] == ["named0", "named1"]
    assert answer["summed_ms"] == net.latency(latency.load(folder / "choices.json"))(rows).tolist()


def test_the_whole_network_of_a_child_is_the_subnets_path():
    net = named(**CHOICES)
    for depth, ops in (("1", 1), ("2", 2)):
        subnet = net.space.from_channels({"stage1/depth": depth, "stage1/block1/operator": "k3e3"})
        unit, sizes = child._whole(net, subnet.tolist())
        assert len(unit.axes) == len(sizes) == ops
        assert unit.axes[0].name == "stage1/block1/k3e3"
        assert sizes == [net.space.to_channels(subnet)[group.name] for group in unit.axes]


@needs_libtpu
def test_a_units_estimate_is_its_share_of_the_whole_network():
    """The units' own instructions, in the layouts and memories that the network gives them."""
    from slimjax.profiling import tpu

    net = named("resnet8", dtype="bfloat16")
    meter = meters.estimated(tpu.compile_only_devices("v5e:2x2")[0], 128, clock_hz=1.5e9)
    channels = net.space.to_channels(net.space.largest)
    parts = [
        meter(unit, [channels[group.name] for group in unit.axes])["median_ms"]
        for unit in units.divide(net.records)
    ]
    whole = meter(units.whole(net.records), list(channels.values()))["median_ms"]
    assert sum(parts) == pytest.approx(whole, rel=0.1)
