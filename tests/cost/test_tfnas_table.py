"""TF-NAS's released tables: what is made of them costs what they say, and can be given back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.commands import refusal
from slimjax.cost import latency, tfnas_table, units
from slimjax.cost.latency import Entry, LatencyTable
from slimjax.errors import UserError
from slimjax.models.tfnas import OPERATORS, STAGES
from slimjax.profiling import exchange
from slimjax.supernet import named
from slimjax.verbs import cli

BASE = 9.3565
NET = named("tfnas")
PARTS = units.divide(NET.records)


def blocks():
    """(stage, block, side, input's channels, output's, stride, activation), by the paper's table."""
    side, inner = 112, 16
    for stage, (count, outer, stride, activation) in enumerate(STAGES, 1):
        for block in range(1, count + 1):
            now = stride if block == 1 else 1
            yield stage, block, side, inner, outer, now, activation
            side, inner = side // now, outer


def name_at(side, inner, outer, stride, activation, operator) -> tuple[str, int]:
    """(name, most channels) of an operator, by hand."""
    expansion, hidden = int(operator[3]), 0
    if operator.endswith("se"):
        hidden = inner * (1 if expansion == 3 else 2)
    top = inner * (8 if expansion == 6 else 4)
    name = f"MBInvertedResBlock_{side}_{inner}_{hidden}_{outer}_k{operator[1]}_s{stride}_{activation}"
    return name, top


def tops() -> dict[str, int]:
    found = {}
    for _, _, *shape in blocks():
        for name, top in (name_at(*shape, operator) for operator in OPERATORS):
            found[name] = max(top, found.get(name, 0))
    return found


def made_up() -> dict:
    """Rising latencies, the first few of which are negative."""
    generator = np.random.default_rng(0)
    rising = lambda top: 1e-3 * np.cumsum(generator.random(top)) - 3e-3  # noqa: E731
    return {"base": BASE} | {name: dict(enumerate(rising(top).tolist(), 1)) for name, top in tops().items()}


RELEASED = made_up()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "latency_cpu.json"
    path.write_text(json.dumps(RELEASED))
    return path


@pytest.fixture(scope="module")
def table(path):
    return exchange.take(path, {"name": "tfnas"}, device="a Xeon", batch=1)


@pytest.fixture(scope="module")
def again(table):
    return exchange.give(table)


def chosen(subnet) -> dict[int, list[float]]:
    """By stage, the milliseconds of its blocks as the released table has them, by hand."""
    channels, found = NET.space.to_channels(subnet), {}
    for stage, block, *shape in blocks():
        if (operator := channels.get(f"stage{stage}/block{block}/operator")) is not None:
            count = channels[f"stage{stage}/block{block}/{operator}"]
            found.setdefault(stage, []).append(RELEASED[name_at(*shape, operator)[0]][count])
    return found


def by_hand(subnet) -> float:
    return BASE + sum(map(sum, chosen(subnet).values()))


def test_names_are_those_of_all_operators_at_all_shapes():
    names = {tfnas_table.name_of(part) for part in PARTS}
    assert names - {None} == set(tops())
    assert len(names - {None}) == 66
    assert sum(tops().values()) == 36_480


def test_each_name_is_one_unit():
    pairs = {(part.key, tfnas_table.name_of(part)) for part in PARTS}
    assert len({key for key, name in pairs if name}) == len({name for _, name in pairs if name})


def test_latency_of_a_path_is_the_base_and_its_operators(table):
    rows = NET.space.random(20, seed=1)
    assert len({len(chosen(row)[2]) for row in rows}) == 3, "all depths of a stage are among them"
    np.testing.assert_allclose(NET.latency(table)(rows), [by_hand(row) for row in rows], rtol=1e-12)


def one_hot(subnet) -> dict:
    options = NET.space.options(subnet)
    return {choice.name: np.eye(len(choice))[options[choice.name]] for choice in NET.space.choices}


def test_one_hot_weights_cost_the_path(table):
    """Whatever options the subnet itself takes."""
    for row in NET.space.random(5, seed=2):
        base = row.copy()
        base[len(NET.space.groups) :] = 0
        found = NET.latency(table).soft(base, one_hot(row))
        np.testing.assert_allclose(found, by_hand(row), rtol=1e-12)


def full(operator="k3e6se"):
    """Every stage at full depth, all of one operator."""
    options = {choice.name: operator for choice in NET.space.choices if "operator" in choice.name}
    return NET.space.from_channels(options)


def test_weights_of_depths_weigh_the_sums_of_blocks(table):
    """LAT = base + sum over stages of sum_d softmax(beta)_d * sum_{j <= d} lat_j; so are its slopes in beta."""
    subnet, generator = full(), np.random.default_rng(3)
    cost, lat = NET.latency(table), chosen(subnet)
    betas = {f"stage{s}/depth": generator.normal(size=len(lat[s])) for s in lat if len(lat[s]) > 1}

    def soft(betas):
        weights = {name: jax.nn.softmax(beta) for name, beta in betas.items()}
        return cost.soft(jnp.asarray(subnet), weights)

    expected, slopes = BASE, {}
    for stage, own in lat.items():
        beta, sums = betas.get(f"stage{stage}/depth", np.zeros(1)), np.cumsum(own)
        share = np.exp(beta) / np.exp(beta).sum()
        expected += share @ sums
        slopes[f"stage{stage}/depth"] = share * (sums - share @ sums)
    assert soft(betas) == pytest.approx(expected, rel=1e-5)
    found = jax.jit(jax.grad(soft))({name: jnp.asarray(beta, jnp.float32) for name, beta in betas.items()})
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, slopes[name], rtol=1e-3, atol=1e-6)


def test_what_was_taken_is_given_back_at_legal_counts(again):
    assert set(again) == set(RELEASED)
    assert again["base"] == pytest.approx(BASE, rel=1e-12)
    for _, _, side, inner, *rest in blocks():
        for operator in OPERATORS:
            name, top = name_at(side, inner, *rest, operator)
            for n in range(top // 2, top + 1):
                assert again[name][n] == RELEASED[name][n]


def test_counts_that_the_space_lacks_have_the_latency_of_the_fewest(again):
    for name, top in tops().items():
        assert sorted(again[name]) == list(range(1, top + 1))
        lowest = min(n for n in again[name] if again[name][n] == RELEASED[name][n])
        assert {again[name][n] for n in range(1, lowest + 1)} == {RELEASED[name][lowest]}
    assert min(min(found.values()) for name, found in again.items() if name != "base") > 0


def test_a_table_of_ours_is_given_with_what_calling_costs_in_the_base():
    """Its grid is sparse: between the profiled counts the released form has what interpolation gives."""
    overhead, entries = 0.25, {}
    for i, (key, axes) in enumerate(units.legal_counts(PARTS, NET.space).items()):
        grid = tuple(axis[[0, len(axis) // 3, -1]] for axis in axes)
        median = overhead + (1.0 if not grid else (1 + i) * np.sqrt(grid[0]))
        entries[key] = Entry(grid, np.array(median), np.zeros_like(median))
    about = dict.fromkeys(latency.ABOUT, "x") | {"network": {"name": "tfnas"}}
    cost = NET.latency(LatencyTable(about, overhead, entries))
    given = tfnas_table.from_table(cost)
    assert given["base"] == pytest.approx(overhead + 3 * 1.0)
    for row in NET.space.random(5, seed=4):
        channels, total = NET.space.to_channels(row), given["base"]
        for stage, block, *shape in blocks():
            if (operator := channels.get(f"stage{stage}/block{block}/operator")) is not None:
                count = channels[f"stage{stage}/block{block}/{operator}"]
                total += given[name_at(*shape, operator)[0]][count]
        assert total == pytest.approx(float(cost(row)), rel=1e-9)


FIRST = next(iter(tops()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.pop("base"), r"lacks 'base'"),
        (lambda body: body.update(base=0.0), "base: expected a number above 0, got 0.0"),
        (lambda body: body.pop(FIRST), f"lacks {FIRST}, which this network has"),
        (lambda body: body[FIRST].pop("50"), f"{FIRST}: expected a positive latency .* got None for 50"),
        (lambda body: body[FIRST].update({"50": -0.1}), "32 to 128 channels, got -0.1 for 50"),
        (
            lambda body: body[FIRST].update({"50": "fast"}),
            "50 channels: expected a finite number, got 'fast'",
        ),
        (lambda body: body[FIRST].update({"many": 0.1}), "many"),
        (lambda body: body.update({FIRST: 0.3}), "items"),
    ],
)
def test_what_is_no_released_table_is_refused_by_what_is_wrong(path, tmp_path, change, message):
    body = json.loads(path.read_text())
    change(body)
    (tmp_path / "wrong.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match=message):
        tfnas_table.to_table(tfnas_table.load(tmp_path / "wrong.json"), PARTS, NET.space, {})


@pytest.mark.parametrize("content", [b"\x80\x04\x95}\x94.", b"[1, 2]", b'{"base": NaN}'])
def test_a_file_that_is_no_json_object_is_refused_with_the_page_that_helps(tmp_path, content):
    """The first is how a pickle begins."""
    (tmp_path / "lut.pkl").write_bytes(content)
    with pytest.raises(UserError, match=r"lut\.pkl: .*docs/latency\.md"):
        tfnas_table.load(tmp_path / "lut.pkl")


def test_a_network_with_other_free_widths_has_no_released_form():
    net = named("us_mobilenet_v2")
    with pytest.raises(UserError, match="it has no name for the unit"):
        tfnas_table.to_table(RELEASED, units.divide(net.records), net.space, {})


def test_an_imported_table_says_so_to_a_network_that_it_is_not_of(table):
    with pytest.raises(UserError, match=r"(?s)lacks \d+ units.*It was imported for \{'name': 'tfnas'\}"):
        named("tfnas", image_size=96).latency(table)


# Through the command line


def answer(capsys, *arguments):
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_commands_take_a_table_price_a_network_and_give_it_back(path, tmp_path, capsys):
    ours, theirs = tmp_path / "t.json", tmp_path / "lut.json"
    what = [
        "profile",
        "--model",
        "tfnas",
        "--import",
        path,
        "--device",
        "a Xeon",
        "--batch",
        "1",
        "--out",
        ours,
    ]
    taken = answer(capsys, *what)
    assert (taken["method"], taken["device"], taken["units"]) == ("imported", "a Xeon", 69)
    assert "<svg" in ours.with_suffix(".html").read_text()
    cost = answer(capsys, "cost", "--model", "tfnas", "--variant", "A", "--table", ours)
    assert cost["latency_ms"] == pytest.approx(by_hand(NET.space.from_channels(cost["channels"])), abs=1e-6)
    given = answer(capsys, "profile", "--export", ours, "--out", theirs)
    assert (given["operators"], given["entries"]) == (66, 36_480)
    again = tfnas_table.load(theirs)
    assert again[FIRST][64] == RELEASED[FIRST][64]
    assert "was imported" in refusal(capsys, "bench", "table", "--table", str(ours), "--subnets", "2")


IMPORT = ["profile", "--model", "tfnas", "--import", "lut.json", "--out", "t.json"]
EXPORT = ["profile", "--export", "t.json", "--out", "lut.json"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (IMPORT, "--import needs --device and --batch: the file does not say"),
        ([*IMPORT, "--device", "x"], "--import needs --batch"),
        ([*IMPORT, "--points", "3"], "--points: nothing is read"),
        ([*IMPORT, "--reuse"], "--reuse: nothing is read"),
        ([*IMPORT, "--target", "cpu"], "not allowed with argument"),
        ([*EXPORT, "--model", "tfnas"], "--model: the table that --export writes says it."),
        ([*EXPORT, "--batch", "4"], "--batch: the table that --export writes says it."),
        (["profile", "--model", "resnet8", "--out", "t.json"], "--target --import --export is required"),
        ([*IMPORT[:-4], "--target", "cpu", "--device", "x", "--out", "t"], "--device: goes with --import."),
    ],
)
def test_options_that_do_not_go_together_are_refused(capsys, command, message):
    assert message in refusal(capsys, *command)
