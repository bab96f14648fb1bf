"""Spaces with choices: which axes a subnet has, how it is written, and what is refused."""

import itertools

import chex
import numpy as np
import pytest

from helpers.choosing import choosing, options_of
from slimjax.errors import BadValue, UserError
from slimjax.nn.choices import Choice, When
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding

SPACE = choosing().space
AT = SPACE.index


def drawn(count=200, seed=0):
    """Random legal subnets, int32 [count, G]."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(SPACE.legal(axis), count) for axis in SPACE.axes], -1).astype(np.int32)


def names_of(subnet) -> set[str]:
    """The axes of a subnet of the choosing network, by hand."""
    depth = int(subnet[AT["depth"]]) + 1
    ops = [("small", "large")[subnet[AT[f"block{number}/operator"]]] for number in range(1, depth + 1)]
    groups = {f"block{number}/{op}" for number, op in enumerate(ops, 1)}
    operators = {f"block{number}/operator" for number in range(1, depth + 1)}
    return {"body", "elastic", "depth", "kernel"} | groups | operators


def test_a_subnet_has_the_axes_of_its_own_path():
    for subnet, exists in zip(drawn(), SPACE.exists(drawn()), strict=True):
        assert {name for name, there in zip(AT, exists, strict=True) if there} == names_of(subnet)
        assert set(SPACE.to_channels(subnet)) == names_of(subnet)


def test_an_axis_exists_under_any_of_its_conditions():
    choice, other = Choice("x", ("a", "b", "c")), Choice("y", ("a", "b"))
    under = {"g": ((When(choice, (0,)),), (When(choice, (2,)), When(other, (1,))))}
    space = Space((Group("g", 8),), Rounding("truncate"), 0.5, 1.0, (choice, other), under)
    found = {(x, y): bool(space.exists(np.array([8, x, y]))[0]) for x, y in np.ndindex(3, 2)}
    assert {pair for pair, there in found.items() if there} == {(0, 0), (0, 1), (2, 1)}


def test_canonical_subnets_are_equal_where_networks_are():
    """What does not exist has its lowest entry; what exists is left; twice is once; batches are one by one."""
    subnets = drawn()
    canonical, exists = SPACE.canonical(subnets), SPACE.exists(subnets)
    np.testing.assert_array_equal(canonical, np.where(exists, subnets, SPACE.lowest))
    np.testing.assert_array_equal(SPACE.canonical(canonical), canonical)
    np.testing.assert_array_equal(canonical, [SPACE.canonical(row) for row in subnets])
    assert canonical.dtype == np.int32
    assert (canonical != subnets).any()
    changed = np.where(exists, subnets, drawn(seed=1))
    np.testing.assert_array_equal(SPACE.canonical(changed), canonical)


def test_subnets_are_written_in_words_and_read_back():
    for subnet in drawn(50):
        words = SPACE.to_channels(subnet)
        assert all(isinstance(words[c.name], str) for c in SPACE.choices if c.name in words)
        np.testing.assert_array_equal(SPACE.from_channels(words), SPACE.canonical(subnet))


def test_what_is_not_named_is_that_of_the_largest_network():
    assert SPACE.to_channels(SPACE.from_channels({})) == SPACE.to_channels(SPACE.largest)
    found = SPACE.to_channels(SPACE.from_channels({"depth": "1", "block1/operator": "small"}))
    assert found == {
        "body": 4,
        "block1/small": 4,
        "elastic": 6,
        "depth": "1",
        "block1/operator": "small",
        "kernel": "5",
    }


@pytest.mark.parametrize("option", ["4", "deep", 2, None])
def test_options_that_a_choice_lacks_are_refused(option):
    with pytest.raises(UserError, match=r"depth.*: expected one of 1, 2, 3, got"):
        SPACE.from_channels({"depth": option})


@pytest.mark.parametrize("entry", [-1, 3, 0.5, True])
def test_positions_that_a_choice_lacks_are_refused_with_what_they_stand_for(entry):
    subnet = SPACE.largest.tolist()
    subnet[AT["depth"]] = entry
    with pytest.raises(BadValue, match=r"depth: .* \(legal: 0 to 2, for 1, 2, 3\)"):
        SPACE.check(subnet)


def test_legal_entries_of_a_choice_are_its_options():
    assert [SPACE.legal(choice).tolist() for choice in SPACE.choices[:2]] == [[0, 1], [0, 1, 2]]
    for option in range(3):
        subnet = SPACE.largest.copy()
        subnet[AT["depth"]] = option
        np.testing.assert_array_equal(SPACE.check(subnet), subnet)


def test_uniform_widths_share_the_range_among_the_options():
    """Of three, from .5 to 1: each a third; every one is legal, and the last is the largest."""
    widths = 0.5 + (np.arange(60) + 0.5) / 120
    depths = np.array([SPACE.uniform(width)[AT["depth"]] for width in widths])
    assert np.bincount(depths).tolist() == [20, 20, 20]
    assert (np.diff(depths) >= 0).all()
    assert SPACE.to_channels(SPACE.uniform(0.5)).keys() == names_of(SPACE.smallest)
    np.testing.assert_array_equal(SPACE.uniform(1.0), SPACE.canonical(SPACE.largest))
    for width in widths:
        np.testing.assert_array_equal(SPACE.check(SPACE.uniform(width)), SPACE.uniform(width))


def test_layerwise_widths_choose_options_and_are_canonical():
    rng = np.random.default_rng(2)
    widths = rng.uniform(0.5, 1, (40, len(SPACE)))
    found = SPACE.layerwise(widths)
    np.testing.assert_array_equal(found, SPACE.canonical(found))
    want = np.minimum((widths[:, AT["depth"]] - 0.5) * 6, 2).astype(int)
    np.testing.assert_array_equal(found[:, AT["depth"]], want)
    chex.assert_trees_all_equal(found[0], SPACE.layerwise(widths[0]))


def test_a_space_of_one_width_has_the_last_options():
    choice = Choice("x", ("a", "b", "c"))
    space = Space((Group("g", 8),), Rounding("truncate"), 1.0, 1.0, (choice,))
    np.testing.assert_array_equal(space.uniform(1.0), [8, 2])


def test_paths_are_as_many_as_counted_by_hand():
    """2 operators in each of one, two or three blocks, and 2 sides of a kernel."""
    entries = [range(len(choice)) for choice in SPACE.choices]
    rows = [(*SPACE.largest[: len(SPACE.groups)], *path) for path in itertools.product(*entries)]
    choices = SPACE.canonical(np.array(rows))[:, len(SPACE.groups) :]
    assert len(rows) == 3 * 2**3 * 2
    assert len(np.unique(choices, axis=0)) == (2 + 4 + 8) * 2
    assert len(options_of((2, ("small", "large"), 3))) == 4


LISTED = Group("listed", 16, counts=(4, 10, 16))


def test_groups_of_listed_counts_have_no_others():
    space = Space((LISTED,), Rounding("multiple", 8), 0.25)
    assert space.legal(LISTED).tolist() == [4, 10, 16]
    assert {space.uniform(w).item() for w in np.linspace(0.25, 1, 50)} == {4, 10, 16}
    assert [space.uniform(w).item() for w in (0.25, 0.5, 0.6, 0.9, 1)] == [4, 10, 10, 16, 16]
    for count in range(20):
        if count in (4, 10, 16):
            assert space.check([count]).item() == count
        else:
            with pytest.raises(BadValue, match=rf"listed: {count} \(legal: 4, 10, 16\)"):
                space.check([count])


@pytest.mark.parametrize("counts", [(4, 10), (4, 16, 10), (10, 4, 16), (4, 4, 16), (0, 16), (4, 10, 17)])
def test_listed_counts_rise_to_the_full_size(counts):
    with pytest.raises(UserError, match="group 'g': expected rising counts from 1 to 16, got"):
        Group("g", 16, counts=counts)


def test_listed_counts_are_those_of_multiples_of_the_group_too():
    assert LISTED.times(3).base == LISTED
