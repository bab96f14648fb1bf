"""How many channels are kept: against sums by hand and against every set; and the noises' formulas."""

import itertools
import types

import numpy as np
import pytest

from slimjax.errors import BadValue
from slimjax.search.sampler import NOISES, kept, sample

ALPHAS = np.random.default_rng(0).normal(size=(20, 7))
THRESHOLDS = (0.0, 0.3, 0.55, 0.65, 0.75, 0.99)


@pytest.mark.parametrize(
    ("threshold", "count"), [(-1, 1), (0, 1), (0.24, 1), (0.25, 2), (0.5, 3), (0.51, 3), (1, 4), (2, 4)]
)
def test_four_equal_channels_hold_a_quarter_each_and_must_pass_the_threshold(threshold, count):
    assert kept(np.full(4, -3.0), threshold) == count


def test_shares_by_hand():
    """e^1 = 2.718, e^0 = 1, e^2 = 7.389 of 11.107: .245, .090, .665; the largest two hold .910."""
    found = [kept(np.array([1.0, 0.0, 2.0]), threshold) for threshold in (0.66, 0.67, 0.90, 0.92)]
    assert found == [1, 2, 2, 3]
    assert kept(np.array([1e4, 0.0, -1e4]), 0.999) == 1  # no overflow
    assert kept(np.array([5.0]), 0.9) == 1


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_no_smaller_set_of_channels_passes_the_threshold(threshold):
    for alphas in ALPHAS:
        shares = np.exp(alphas) / np.exp(alphas).sum()
        sets = (s for size in range(1, 8) for s in itertools.combinations(shares, size))
        assert kept(alphas, threshold) == len(next(s for s in sets if sum(s) > threshold))


def test_more_are_kept_the_higher_the_threshold_so_kept_sets_are_nested():
    found = [[kept(alphas, threshold) for threshold in np.linspace(0, 1, 101)] for alphas in ALPHAS]
    assert (np.diff(found, axis=1) >= 0).all()
    assert (np.max(found), np.min(found)) == (7, 1)


def draws(*values):
    """A generator whose uniform draws are these."""
    return types.SimpleNamespace(random=lambda count: np.array(values)[:count])


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ("none", [0, 0, 0]),
        ("uniform", [-0.5, -0.25, 0]),
        # log .5 = -.693147, -log .693147 = .366513; log .25 = -1.386294, -log 1.386294 = -.326634; for 0 the smallest
        # normal number, 2^-1022, whose logarithm is -708.396; -log 708.396 = -6.563.
        ("gumbel", [0.366513, -0.326634, -6.563]),
    ],
)
def test_noise_by_hand(noise, expected):
    np.testing.assert_allclose(NOISES[noise](draws(0.5, 0.25, 0.0), 3), expected, atol=1e-4)


@pytest.mark.parametrize(("noise", "share"), [("none", 2 / 3), ("uniform", 1 / 2), ("gumbel", 1 / 9)])
def test_noise_keeps_the_share_that_is_said(noise, share):
    rng = np.random.default_rng(0)
    found = [sample({"a": np.zeros(64)}, {"a": 0.65}, noise, rng)["a"] / 64 for _ in range(200)]
    assert np.mean(found) == pytest.approx(share, rel=0.1)


def test_every_group_has_its_own_threshold_and_noise():
    alphas = {"a": np.zeros(4), "b": np.zeros(4), "c": np.array([0.0, 3.0])}
    thresholds = {"c": 0.9, "b": 0.6, "a": 0.3}
    assert sample(alphas, thresholds, "none", np.random.default_rng(0)) == {"a": 2, "b": 3, "c": 1}
    # a and b with noise: 0 and three times -.9. e^-.9 = .407, so the first holds 1 of 2.220, .451, and is enough
    # for .3; .6 needs a second (.634). c with noise: 0 and 3 - .9, whose share is .891: .9 needs both.
    rng = draws(0.0, 0.9, 0.9, 0.9)
    assert sample(alphas, thresholds, "uniform", rng) == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("noise", NOISES)
def test_sample_is_a_function_of_the_generator(noise):
    alphas = {name: np.random.default_rng(i).normal(size=64) for i, name in enumerate("abc")}
    thresholds = dict.fromkeys("abc", 0.7)
    found = [sample(alphas, thresholds, noise, np.random.default_rng(seed)) for seed in (0, 0, 1, 2)]
    assert found[0] == found[1]
    assert (found[0] == found[2] == found[3]) == (noise == "none")


def test_noises_are_known_by_name_and_cannot_be_changed():
    with pytest.raises(BadValue, match=r"^noise: expected one of none, uniform, gumbel, got 'normal'\.$"):
        sample({}, {}, "normal", np.random.default_rng(0))
    with pytest.raises(TypeError):
        NOISES["none"] = NOISES["gumbel"]
