"""Rounding policies and width spaces."""

from fractions import Fraction

import chex
import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slimjax.errors import UserError
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding, Width, named_width, width_name

# Published channel table of US-MobileNets: width -> channels of bases 16 24 32 64 96 128 160 256 320 512 1024.
BASES = (16, 24, 32, 64, 96, 128, 160, 256, 320, 512, 1024)
TABLE = {
    0.25: (8, 8, 8, 16, 24, 32, 40, 64, 80, 128, 256),
    0.275: (8, 8, 8, 16, 24, 32, 48, 72, 88, 144, 280),
    0.35: (8, 8, 16, 24, 32, 48, 56, 88, 112, 176, 360),
    0.425: (8, 16, 16, 32, 40, 56, 72, 112, 136, 216, 432),
    0.55: (8, 16, 16, 32, 56, 72, 88, 144, 176, 280, 560),
    0.575: (16, 16, 24, 40, 56, 72, 96, 144, 184, 296, 592),
    0.7: (16, 16, 24, 48, 64, 88, 112, 176, 224, 360, 720),
    0.775: (16, 24, 24, 48, 72, 96, 128, 200, 248, 400, 792),
    0.975: (16, 24, 32, 64, 96, 128, 160, 248, 312, 496, 1000),
    1.0: BASES,
}
GROUPS = (Group("a", 32), Group("b", 96, quantum=6), Group("image", 3, fixed=True), Group("c", 64))
SPACE = Space(GROUPS, Rounding("make_divisible", 8), 0.25)


@pytest.mark.parametrize("width", TABLE)
def test_make_divisible_reproduces_the_published_channel_table(width):
    rounding = Rounding("make_divisible", 8)
    assert tuple(Group("g", base).at(width, rounding) for base in BASES) == TABLE[width]


def test_truncate_is_int_of_the_product():
    rounding = Rounding("truncate")
    assert [Group("g", 64).at(w, rounding) for w in (0.42, 0.29, 0.999, 0.001)] == [26, 18, 63, 1]


def test_multiple_rounds_to_the_nearest_and_is_never_empty():
    rounding = Rounding("multiple", 8)
    assert [Group("g", 64).at(w, rounding) for w in (0.01, 0.3, 0.45, 0.57)] == [8, 16, 32, 40]


def test_expanded_group_is_a_multiple_of_its_rounded_input():
    # hidden = t * make_divisible(input * w): 6 * 8 at .35 of 16, although .35 * 96 rounds to 32.
    assert Group("hidden", 96, quantum=6).at(0.35, Rounding("make_divisible", 8)) == 48


def test_truncation_rounds_an_expanded_group_on_its_own():
    # Joslim: int(.42 * 96) = 40, which is no multiple of 6; six times int(.42 * 16) would be 36.
    assert Group("hidden", 96, quantum=6).at(0.42, Rounding("truncate")) == 40


def test_tiles_are_whole_above_the_first():
    rounding = Rounding("tile", 8)
    wide = Group("g", 320)
    assert wide.only(rounding) == (*range(8, 128, 8), 128, 256, 320)
    assert [wide.at(w, rounding) for w in (0.05, 0.3, 0.5, 0.7, 0.95, 1.0)] == [16, 96, 128, 256, 320, 320]
    assert Group("g", 60).only(rounding) == (*range(8, 60, 8), 60)
    assert Group("g", 320, fixed=True).at(0.5, rounding) == 320
    assert Group("g", 240, multiple_of=3).only(rounding) == (*range(24, 240, 24), 240)


def test_multiple_of_holds_under_every_rounding():
    group = Group("g", 48, multiple_of=3)
    counts = {
        policy: [group.at(w, Rounding(policy, 8)) for w in (0.01, 0.25, 0.35, 0.7)]
        for policy in Rounding.POLICIES
    }
    assert counts["truncate"] == [3, 12, 15, 33]
    assert counts["multiple"] == [24, 24, 24, 24]
    assert all(n % 3 == 0 for n in counts["make_divisible"])


def test_multiple_of_the_full_size_is_required():
    with pytest.raises(UserError, match="group 'g': expected a multiple of 3, got 16"):
        Group("g", 16, multiple_of=3)


def test_times_is_an_axis_of_the_same_group():
    group = Group("g", 6, multiple_of=3)
    axis = group.times(10).times(Fraction(1, 3))
    assert (axis.channels, axis.entries(3), axis.base) == (20, 10, group)


def test_times_refuses_what_is_not_whole_at_every_width():
    with pytest.raises(UserError, match=r"1/3 of its channels.*multiple_of=3"):
        Group("g", 6).times(Fraction(1, 3))


def test_space_leaves_fixed_groups_out():
    assert [g.name for g in SPACE.groups] == ["a", "b", "c"]


@given(st.floats(0.25, 1.0))
def test_uniform_is_monotone_and_inside_the_space(width):
    subnet = SPACE.uniform(width)
    assert (SPACE.smallest <= subnet).all()
    assert (subnet <= SPACE.largest).all()
    assert (subnet <= SPACE.uniform(min(1.0, width + 0.1))).all()
    np.testing.assert_array_equal(SPACE.check(subnet), subnet)


def test_widths_where_the_published_rounding_is_not_monotone_are_legal():
    space = Space((Group("g", 32),), Rounding("make_divisible", 8), 0.05)
    assert [space.uniform(w).item() for w in (0.05, 0.125)] == [9, 8]
    for width in (0.05, 0.125, 0.25):
        space.check(space.uniform(width))


@given(st.floats(allow_nan=True, allow_infinity=True).filter(lambda w: not 0.25 <= w <= 1))
def test_uniform_refuses_every_width_outside_the_range(width):
    with pytest.raises(UserError, match=r"from 0\.25 to 1"):
        SPACE.uniform(width)


@given(st.lists(st.integers(-8, 128), min_size=3, max_size=3))
@example([12, 48, 16])
@example([32, 96, 64])
@example([8, 24, 0])
def test_check_accepts_exactly_the_legal_channel_counts(channels):
    legal = all(
        low <= n <= g.channels and (n % 8 == 0 or n in (low, g.channels))
        for n, g, low in zip(channels, SPACE.groups, SPACE.smallest, strict=True)
    )
    if legal:
        assert SPACE.check(channels).tolist() == channels
    else:
        with pytest.raises(UserError, match="legal: "):
            SPACE.check(channels)


@pytest.mark.parametrize("channels", [7, 16, 46, 47])
def test_check_refuses_counts_that_conv_groups_cannot_share(channels):
    space = Space((Group("g", 48, multiple_of=3),), Rounding("truncate"))
    with pytest.raises(UserError, match=rf"g: {channels} \(legal: 12 to 48 in steps of 3\)"):
        space.check([channels])


def test_max_width_means_full_size():
    space = Space((Group("g", 48),), Rounding("truncate"), min_width=0.5, max_width=2.0)
    assert [space.uniform(w).item() for w in (0.5, 1, 1.3, 2)] == [12, 24, 31, 48]
    assert space.layerwise([1.0]).item() == 24
    assert (space.smallest.item(), space.lowest.item(), space.largest.item()) == (12, 12, 48)


@pytest.mark.parametrize("width", [0.4, 2.1])
def test_uniform_refuses_widths_outside_a_range_that_ends_above_one(width):
    space = Space((Group("g", 48),), Rounding("truncate"), min_width=0.5, max_width=2.0)
    with pytest.raises(UserError, match=r"width: expected a number from 0\.5 to 2, got"):
        space.uniform(width)


@pytest.mark.parametrize("vector", [[8, 48], [8, 48, 16, 8], []])
def test_check_refuses_a_wrong_vector_length(vector):
    with pytest.raises(UserError, match="expected 3 entries"):
        SPACE.check(vector)


@pytest.mark.parametrize("value", [8.0, True, "8", None])
def test_check_refuses_what_is_not_an_integer(value):
    with pytest.raises(UserError, match="a: "):
        SPACE.check([value, 48, 16])


def test_from_channels_keeps_unnamed_groups_full():
    assert SPACE.from_channels({"a": 16}).tolist() == [16, 96, 64]


def test_from_channels_names_unknown_groups():
    with pytest.raises(UserError, match=r"unknown groups \['z'\].*a, b, c"):
        SPACE.from_channels({"z": 8})


def test_layerwise_rounds_each_group_alone():
    assert SPACE.layerwise([0.25, 1.0, 0.5]).tolist() == [8, 96, 32]


def test_sizes_are_static_and_active_counts_are_not():
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(lambda widths: widths["a"].mask(), n=1))
    masks = [run(SPACE.masked(SPACE.uniform(w))) for w in (0.25, 0.5)]
    assert [int(m.sum()) for m in masks] == [8, 16]
    with pytest.raises(AssertionError, match="is traced > 1 times"):
        run(SPACE.bucketed(SPACE.uniform(0.5), SPACE.uniform(0.25)))


def test_sliced_widths_have_no_mask():
    assert Width(4).mask() is None


@given(st.floats(1e-6, 16.0))
def test_width_name_is_unique_and_reversible(width):
    assert named_width(width_name(width)) == width


def test_width_name_has_two_decimals_where_they_suffice():
    assert [width_name(w) for w in (0.25, 1.0, 0.275, 2.0)] == ["w0.25", "w1.00", "w0.275", "w2.00"]
