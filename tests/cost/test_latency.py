"""Latency tables as a cost: interpolation, derivatives, what they refuse."""

import dataclasses
import hashlib
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.cost import latency, units
from slimjax.cost.latency import Entry, Latency, LatencyTable
from slimjax.errors import UserError
from slimjax.supernet import named

ABOUT = {
    "target": "cpu",
    "device": "a CPU",
    "method": "measured",
    "network": {"name": "resnet8"},
    "image_shape": [32, 32, 3],
    "batch": 4,
    "dtype": "float32",
    "repeats": 7,
    "date": "2026-01-01",
    "versions": {"jax": "0"},
}
OVERHEAD = 0.25
RESNET = named("resnet8")
UNITS = units.divide(RESNET.records)
NAMES = [group.name for group in RESNET.space.groups]


def true_ms(sizes):
    """Linear in every axis, so that interpolation is exact."""
    return OVERHEAD + np.prod([0.1 + n for n in sizes]) / 1e4


def table_of(net=RESNET, cost=true_ms) -> LatencyTable:
    entries = {}
    for unit in units.divide(net.records):
        grid = tuple(np.array([2, 5, 16, 40, group.channels + 64]) for group in unit.axes)
        found = [cost(sizes) for sizes in itertools.product(*grid)]
        median = np.reshape(found, [len(axis) for axis in grid])
        entries[unit.key] = Entry(grid, median, 0.1 * median)
    return LatencyTable(ABOUT, OVERHEAD, entries)


def expected_ms(subnet) -> float:
    channels = dict(zip(NAMES, np.asarray(subnet).tolist(), strict=True))
    parts = [true_ms([channels[group.name] for group in unit.axes]) - OVERHEAD for unit in UNITS]
    return OVERHEAD + sum(parts)


def subnets(count=6):
    generator = np.random.default_rng(0)
    return generator.integers(RESNET.space.smallest, RESNET.space.largest + 1, (count, len(NAMES)))


def test_latency_is_the_sum_over_units_interpolated_between_profiled_counts():
    found = RESNET.latency(table_of())(subnets())
    np.testing.assert_allclose(found, [expected_ms(row) for row in subnets()], rtol=1e-12)


def test_latency_at_profiled_counts_is_what_was_profiled():
    """Whatever lies between: here a staircase."""
    table = table_of(cost=lambda sizes: 1.0 + np.ceil(np.sum(sizes) / 32))
    unit = UNITS[0]
    at = dict(zip([group.name for group in unit.axes], (5, 16), strict=True))
    subnet = [at.get(name, 16) for name in NAMES]
    index = 1, 2
    assert RESNET.latency(table).per_unit(np.array(subnet))[0] == table.entries[unit.key].median_ms[index]


@pytest.fixture(scope="module")
def mixed():
    """A network with choices, and random subnets of it; entries of what they have not are large counts."""
    options = {"stages": [[2, 8, 2, "relu"], [1, 16, 1, "swish"]], "operators": ["k3e3", "k3e6", "k5e3se"]}
    net = named("tfnas", image_size=16, num_classes=5, options=options)
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(net.space.legal(axis), 12) for axis in net.space.axes], -1)
    return net, np.where(net.space.exists(rows), rows, net.space.largest)


def test_latency_is_the_sum_over_the_units_that_a_subnet_has(mixed):
    net, rows = mixed
    cost = net.latency(table_of(net))
    for row, found in zip(rows, cost(rows), strict=True):
        chosen = {choice.name: row[net.space.index[choice.name]] for choice in net.space.choices}
        there = [all(chosen[c.name] in allowed for c, allowed in unit.under) for unit, _ in cost.units]
        assert 4 <= sum(there) < len(there)
        assert found == pytest.approx(OVERHEAD + (cost.per_unit(row)[there] - OVERHEAD).sum(), rel=1e-12)
        assert cost(row) == pytest.approx(found, rel=1e-12)
    np.testing.assert_allclose(jax.jit(cost)(jnp.asarray(rows, jnp.int32)), cost(rows), rtol=1e-5)


def test_weights_of_one_option_give_the_latency_of_a_subnet(mixed):
    """On the host and traced, all choices or some of them."""
    net, rows = mixed
    cost = net.latency(table_of(net))
    weights = {c.name: np.eye(len(c))[rows[:, net.space.index[c.name]]] for c in net.space.choices}
    blank = np.where(np.arange(len(net.space)) < len(net.space.groups), rows, 0)
    np.testing.assert_allclose(cost.soft(blank, weights), cost(rows), rtol=1e-12)
    some = dict(list(weights.items())[:1])
    np.testing.assert_allclose(cost.soft(rows, some), cost(rows), rtol=1e-12)
    traced = jax.jit(cost.soft)(jnp.asarray(blank, jnp.int32), jax.tree.map(jnp.asarray, weights))
    np.testing.assert_allclose(traced, cost(rows), rtol=1e-5)


def test_units_that_no_subnet_has_are_not_looked_up(mixed):
    net, rows = mixed
    cost = net.latency(table_of(net))
    row = rows[0]
    away = np.flatnonzero(~net.space.exists(row))
    beyond = np.where(np.arange(len(row)) == away[0], 10_000, row)  # of no profiled count
    assert cost(beyond) == cost(row)
    with pytest.raises(UserError, match="asked for"):
        cost.per_unit(beyond)


def test_latency_inside_jit_is_that_of_the_host():
    cost = RESNET.latency(table_of())
    np.testing.assert_allclose(jax.jit(cost)(jnp.asarray(subnets())), cost(subnets()), rtol=1e-5)


def test_gradient_is_the_slope_between_two_profiled_counts():
    cost = RESNET.latency(table_of(cost=lambda sizes: 1.0 + np.sum(sizes) ** 2 / 1000))
    at = np.array([7.0, 9.0, 8.0, 10.0, 20.0, 30.0])  # inside the cells of 5 to 16 and 16 to 40
    gradient = jax.grad(jax.jit(cost))(jnp.asarray(at, jnp.float32))
    steps = 0.5 * np.eye(len(at))
    np.testing.assert_allclose(gradient, cost(at + steps) - cost(at - steps), rtol=1e-4)


def test_units_that_were_not_profiled_are_named_with_the_command_that_profiles_them():
    with pytest.raises(UserError, match=r"(?s)lacks \d+ units.*Conv3x3 3>a.*slimjax profile --model"):
        named("resnet20", image_size=48).latency(table_of())


def test_channels_outside_the_profiled_range_are_refused_on_the_host_and_clamped_in_jit():
    entries = {
        key: dataclasses.replace(
            entry,
            grid=tuple(axis[1:4] for axis in entry.grid),
            median_ms=entry.median_ms[(slice(1, 4),) * entry.median_ms.ndim],
        )
        for key, entry in table_of().entries.items()
    }
    cost = Latency(LatencyTable(ABOUT, OVERHEAD, entries), UNITS, RESNET.space)
    with pytest.raises(UserError, match="profiled for 5 to 40 channels; asked for 64 to 64"):
        cost(RESNET.space.largest)
    clipped = np.minimum(RESNET.space.largest, 40)
    assert jax.jit(cost)(jnp.asarray(RESNET.space.largest)) == pytest.approx(float(cost(clipped)), rel=1e-5)


def test_monotone_repair_leaves_rising_tables_alone_and_mends_others():
    assert latency.monotone(table_of()).repaired == {"changed_share": 0.0, "largest_relative_change": 0.0}
    wavy = table_of(cost=lambda sizes: 10 + np.sin(np.sum(sizes)))
    mended = latency.monotone(wavy)
    assert mended.repaired["changed_share"] > 0.5
    for key, entry in mended.entries.items():
        assert all((np.diff(entry.median_ms, axis=axis) >= 0).all() for axis in range(len(entry.grid)))
        before = wavy.entries[key].median_ms
        assert before.min() <= entry.median_ms.min()
        assert entry.median_ms.max() <= before.max()


@pytest.fixture
def saved(tmp_path):
    table_of().save(tmp_path / "table.json")
    return tmp_path / "table.json"


def test_a_saved_table_is_read_back_whole(saved):
    table, again = table_of(), latency.load(saved)
    assert (again.about, again.overhead_ms) == (ABOUT, OVERHEAD)
    assert again.entries.keys() == table.entries.keys()
    np.testing.assert_array_equal(RESNET.latency(again)(subnets()), RESNET.latency(table)(subnets()))


@pytest.mark.parametrize("tenth", range(10))
def test_a_table_that_was_cut_off_is_refused_with_its_path_and_what_to_do(saved, tenth):
    text = saved.read_text()
    saved.write_text(text[: len(text) * tenth // 10])
    with pytest.raises(UserError, match=r"table\.json: not a whole JSON file.*profile command again"):
        latency.load(saved)


def edit(path, change, checksum=True) -> None:
    body = json.loads(path.read_text())
    change(body)
    if checksum:
        body.pop("checksum")
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        body["checksum"] = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(body))


def first(body):
    return next(iter(body["units"].values()))


@pytest.mark.parametrize("value", [0, -1.0, None, "fast"])
def test_a_latency_that_is_none_is_refused(saved, value):
    edit(saved, lambda body: first(body)["median_ms"].__setitem__(0, value))
    with pytest.raises(UserError, match=r"table\.json: .*(finite, positive milliseconds|shape|float)"):
        latency.load(saved)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(saved, value):
    saved.write_text(saved.read_text().replace('"overhead_ms": 0.25', f'"overhead_ms": {value}'))
    with pytest.raises(UserError, match=f"{value} is not a finite number"):
        latency.load(saved)


def test_a_table_that_was_changed_by_hand_is_refused(saved):
    edit(saved, lambda body: body["about"].update(device="a faster one"), checksum=False)
    with pytest.raises(UserError, match="its checksum does not fit"):
        latency.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.update(schema=99), "expected schema 1, got 99"),
        (lambda body: body["about"].pop("device"), "does not say its device"),
        (lambda body: body.pop("units"), "lacks 'units'"),
        (lambda body: first(body)["grid"][0].reverse(), "expected ascending channel counts"),
        (lambda body: first(body)["median_ms"].pop(), "expected latencies of shape"),
    ],
)
def test_a_table_of_another_form_says_what_is_wrong(saved, change, message):
    edit(saved, change)
    with pytest.raises(UserError, match=message):
        latency.load(saved)


def test_a_missing_table_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"no such file\. Make one: slimjax profile"):
        latency.load(tmp_path / "none.json")
