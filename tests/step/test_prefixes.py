"""Common beginnings: found where they are, computed once, and no work of theirs in what comes after."""

import collections

import jax
import numpy as np
import pytest

from helpers.nets import named
from helpers.scorers import make, related_subnets
from slimjax.step import prefixes
from slimjax.step.scoring import Scorer


@pytest.fixture(scope="module")
def net():
    return named("resnet8", channels=(4, 8, 8))


def subnets_of(net, *columns):
    """The largest network, with the given channels in the first groups."""
    rows = np.tile(net.space.largest, (len(columns[0]), 1))
    for column, values in enumerate(columns):
        rows[:, column] = values
    return rows


def test_boundaries_know_what_comes_before_and_after(net):
    found = {boundary.module: boundary for boundary in prefixes.boundaries(net)}
    assert list(found) == ["stem", "stem_norm", "stage1_block1", "stage2_block1", "stage3_block1"]
    names = [group.name for group in net.space.groups]
    block = found["stage2_block1"]
    assert [names[i] for i in block.groups] == ["stage1", "stage1/block1", "stage2/block1", "stage2"]
    assert [names[i] for i in block.later] == ["stage2", "stage3/block1", "stage3"]


def test_macs_between_cuts_and_after_them_are_those_of_the_network(net):
    chain = prefixes.boundaries(net)[1:4:2]
    total = sum(prefixes.macs_between(net, chain)) + prefixes.macs_after(net, chain)(net.space.largest)
    assert total == prefixes.macs_after(net, ())(net.space.largest) == net.macs(net.space.largest)


def test_boundaries_are_chosen_where_beginnings_are_common(net):
    alike = subnets_of(net, [4] * 20, [4] * 20)
    alike[:, -1] = np.arange(20) % 7 + 2
    assert [boundary.module for boundary in prefixes.choose(net, alike, most=1)] == ["stage2_block1"]
    assert not prefixes.choose(net, subnets_of(net, [1, 2, 3, 4]))
    assert not prefixes.choose(net, alike, most=0)


def test_order_puts_common_beginnings_together(net):
    chain = tuple(
        boundary
        for boundary in prefixes.boundaries(net)
        if boundary.module in ("stage1_block1", "stage2_block1")
    )
    rows = subnets_of(net, [4, 2, 4, 2, 4, 2], [3, 3, 3, 3, 2, 3], [5, 5, 5, 6, 5, 5])
    order, fresh = prefixes.in_order(chain, rows)
    assert sorted(order) == list(range(6))
    computed = collections.Counter()
    known = [None, None]
    for row, level in zip(order, fresh, strict=True):
        keys = [tuple(rows[row, list(boundary.groups)]) for boundary in chain]
        for later in range(level, 2):
            known[later] = keys[later]
            computed[later] += 1
        assert known == keys, "what is not computed anew is that of the call before"
    assert computed == {0: 3, 1: 4}, "as many as differ"


def test_each_beginning_is_computed_once(monkeypatch):
    engine, state, batch, _ = make(1, max_programs=7)
    rows = related_subnets(engine, 60)
    scorer = Scorer(engine, rows)
    assert len(scorer.layout.boundaries) == 2
    calls, real = collections.Counter(), scorer.programs.run
    monkeypatch.setattr(scorer.programs, "run", lambda call: calls.update([call.key[:2]]) or real(call))
    scorer(state, rows, batch)
    for boundary in scorer.layout.boundaries:
        distinct = len(np.unique(rows[:, boundary.groups], axis=0))
        assert calls["beginning", boundary] == distinct < len(rows)


def test_devices_neither_compute_nor_exchange_twice():
    """Of one subnet's programs together: the convolutions and all-reduces of a program that does all."""
    whole, parts = collections.Counter(), collections.Counter()
    for found, most in ((whole, 5), (parts, 7)):
        engine, state, batch, _ = make(1, devices=8, max_programs=most)
        scorer = Scorer(engine, related_subnets(engine, 60), shard="batch")
        scorer(state, related_subnets(engine, 60)[:1], batch)
        for key, program in scorer.programs.live():
            text = program.as_text()
            if key[0] != "prepare":
                found.update({op: text.count(f" {op}(") for op in ("convolution", "all-reduce")})
    assert whole == parts
    assert min(whole.values()) > 0


def test_nothing_is_computed_twice(net):
    """Convolutions of the two parts together are those of the network."""
    (boundary,) = (boundary for boundary in prefixes.boundaries(net) if boundary.module == "stage2_block1")
    images = np.ones((2, *net.image_shape), np.float32)
    variables = net.model.init(jax.random.key(0), images, train=True)
    whole = net.space.sliced(net.space.largest)

    def convolutions(source, begin, end):
        program = jax.jit(lambda v, x: prefixes.run(net, v, x, whole, begin, end))
        return program.lower(variables, source).compile().as_text().count(" convolution("), program(
            variables, source
        )

    first, value = convolutions(images, None, boundary)
    second, logits = convolutions(value, boundary, None)
    both, expected = convolutions(images, None, None)
    assert 0 < first < both
    assert first + second == both
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
