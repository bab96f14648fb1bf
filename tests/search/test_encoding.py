"""How a Gaussian process sees choices: distances, posteriors, slopes; the exchange of options; what it is good for."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from helpers import nested
from helpers.nested import LOW, SPACE
from slimjax.nn.choices import Choice
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search import bayes, gp, segment
from slimjax.search.acquisition import Tchebyshev, TrueCost
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.encoding import Encoded, Encoding, exchanged
from slimjax.search.kernels import AdditiveMatern, Matern
from slimjax.search.mobo import mobo

ENCODING = nested.encoding()
DIMS = len(SPACE)
KERNELS = {"matern": Matern(), "ard": Matern(ard=True), "additive": AdditiveMatern()}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def drawn(count, seed=0):
    return np.random.default_rng(seed).uniform(LOW, 1, (count, DIMS))


def point(**options):
    """Half of all channels, and options by the choices' names; the first of what is not named."""
    positions = np.array([options.get(choice.name, 0) for choice in SPACE.choices])
    return np.concatenate([[0.5, 0.5, 0.5], ENCODING.middles(positions)])


def distance(a, b):
    return np.linalg.norm(ENCODING.encode(a) - ENCODING.encode(b))


def lengthscales(kernel):
    return np.linspace(0.4, 0.9, kernel.scales(DIMS))


# What is seen


def test_options_are_those_of_the_subnets():
    points = np.concatenate([drawn(300), np.repeat(np.linspace(LOW, 1, 61)[:, None], DIMS, axis=1)])
    rows, exists = nested.subnets(points), ENCODING.existing(points)
    np.testing.assert_array_equal(exists, SPACE.exists(rows))
    np.testing.assert_array_equal(np.where(exists[:, 3:], ENCODING.positions(points), 0), rows[:, 3:])


def test_one_width_only_takes_the_last_option():
    encoding = Encoding(1, (3,), (False,), 1.0, lambda rows: np.ones(rows.shape, bool))
    assert encoding.positions(np.array([1.0, 1.0])).tolist() == [2]


def test_encoded_columns_by_hand():
    """Depth 2 of 3; the first operator is skip; of the second, plain, neither channels nor a side are there."""
    found = ENCODING.encode(point(depth=1, first=2, second=0, side=1))
    depth, side = LOW + 0.75 / 2, LOW + 0.75 / 4
    hot = 1 / np.sqrt(2)
    np.testing.assert_allclose(found, [0.5, LOW, LOW, depth, side, 0, 0, hot, hot, 0, 0, 0])
    assert ENCODING.owners.tolist() == [0, 1, 2, 3, 6, 4, 4, 4, 5, 5, 5, 5]


def test_any_two_unordered_options_are_one_apart_and_ordered_ones_by_their_order():
    for a, b in itertools.combinations([0, 2, 3], 2):  # `wide` brings axes along
        assert distance(point(depth=2, second=a), point(depth=2, second=b)) == pytest.approx(1)
    assert distance(point(depth=1), point(depth=2)) == pytest.approx(0.25)
    wide = {"depth": 2, "second": 1}
    assert distance(point(**wide, side=0), point(**wide, side=1)) == pytest.approx(0.375)


@every_kernel
def test_the_same_network_has_the_variance_as_its_covariance(kernel):
    """Points that differ within an option's share, and in what does not exist."""
    a = drawn(200)
    b = np.where(ENCODING.existing(a), a, drawn(200, seed=1))
    share = 0.75 / np.array(ENCODING.sizes)
    low = LOW + ENCODING.positions(b) * share
    b[:, 3:] = low + np.random.default_rng(2).uniform(0.01, 0.99, low.shape) * share
    assert (a != b).any(axis=0)[1:].all(), (
        "each axis differs somewhere, but for the stem, which is always there"
    )
    np.testing.assert_array_equal(nested.subnets(a), nested.subnets(b))
    covariance = Encoded(kernel, ENCODING).cross(a, b, lengthscales(kernel))
    variance = Encoded(kernel, ENCODING).variance(DIMS)
    np.testing.assert_allclose(np.diagonal(covariance), variance, rtol=1e-6)


def test_options_of_a_point_are_in_the_middle_of_their_shares_once_it_is_snapped():
    points = drawn(100)
    snapped = ENCODING.snapped(points)
    np.testing.assert_array_equal(nested.subnets(snapped.astype(np.float32)), nested.subnets(points))
    np.testing.assert_allclose(ENCODING.snapped(snapped), snapped)


# The kernel


@every_kernel
def test_covariances_are_the_inner_kernels_of_what_is_seen(kernel):
    x, points, scales = drawn(30), drawn(7, seed=1), lengthscales(kernel)
    a, b = ENCODING.encode(points), ENCODING.encode(x)
    by_column = scales if len(scales) == 1 else scales[ENCODING.owners]
    encoded = Encoded(kernel, ENCODING)
    np.testing.assert_allclose(encoded.cross(points, x, scales), kernel.cross(a, b, by_column))
    np.testing.assert_allclose(encoded.cross_slopes(points, x, scales)[0], kernel.cross(a, b, by_column))
    np.testing.assert_allclose(encoded.gram(x, scales)[0], kernel.gram(b, by_column)[0])


@every_kernel
def test_slopes_of_covariances_are_their_differences_and_none_along_choices(kernel):
    x, scales, encoded = drawn(20), lengthscales(kernel), Encoded(kernel, ENCODING)
    points, weights = ENCODING.snapped(drawn(6, seed=1)), np.random.default_rng(2).normal(size=(6, 20, 2))
    slopes = encoded.cross_slopes(points, x, scales)[1](weights)

    def sums(some):
        return np.einsum("mnk,mn->mk", weights, encoded.cross(some, x, scales))

    for axis, step in enumerate(1e-6 * np.eye(DIMS)):
        expected = (sums(points + step) - sums(points - step)) / 2e-6
        np.testing.assert_allclose(slopes[:, axis], expected, rtol=1e-4, atol=1e-6)
    lacking = ~ENCODING.existing(points)
    assert lacking[:, :3].any()
    assert not slopes[lacking].any()
    assert not slopes[:, 3:].any()
    assert slopes[:, 0].all()


@every_kernel
@pytest.mark.parametrize("n", [2, 50])
def test_gradient_of_the_objective_is_its_slope(kernel, n):
    x, encoded = drawn(n), Encoded(kernel, ENCODING)
    objective = gp._Objective(x, np.sin(5 * x).sum(axis=1), encoded)
    vector = np.log([*lengthscales(kernel), 1.7, 0.02])
    assert len(lengthscales(kernel)) in (1, DIMS), "options of a choice share a lengthscale"
    slope = optimize.approx_fprime(vector, lambda v: objective(v)[0], 1e-6)
    np.testing.assert_allclose(objective(vector)[1], slope, rtol=1e-4, atol=1e-4)


@every_kernel
def test_posterior_is_that_of_a_naive_process_of_what_is_seen(kernel):
    x, points = drawn(40), drawn(9, seed=1)
    y = nested.error(nested.subnets(x))
    hyper = gp.Hyper(tuple(lengthscales(kernel)), 1.7, 0.02)
    process = gp.condition(x, y, Encoded(kernel, ENCODING), hyper)
    scales = np.array(hyper.lengthscale)
    scales = scales if len(scales) == 1 else scales[ENCODING.owners]

    def covariance(a, b):
        apart = np.abs(ENCODING.encode(a)[:, None] - ENCODING.encode(b)) / scales
        z = np.sqrt(5) * (apart if kernel == AdditiveMatern() else np.linalg.norm(apart, axis=-1)[..., None])
        return 1.7 * ((1 + z + z**2 / 3) * np.exp(-z)).sum(-1)

    inner, cross = covariance(x, x) + 0.02 * np.eye(40), covariance(points, x)
    ones = np.linalg.solve(inner, np.ones(40))
    constant = ones @ y / ones.sum()
    mean, deviation = process.posterior(points)
    expected = constant + cross @ np.linalg.solve(inner, y - constant)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    variance = np.diagonal(covariance(points, points)) - (cross * np.linalg.solve(inner, cross.T).T).sum(1)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-6)


def test_other_data_are_seen_anew():
    encoded, scales = Encoded(Matern(), ENCODING), np.array([0.5])
    points, first, second = drawn(3), drawn(5, seed=1), drawn(5, seed=2)
    encoded.cross(points, first, scales)
    expected = Encoded(Matern(), ENCODING).cross(points, second, scales)
    np.testing.assert_array_equal(encoded.cross(points, second, scales), expected)


# Exchange


def table_value(points):
    """An arbitrary number for every combination of options, and the first width's square."""
    table = np.random.default_rng(5).normal(size=ENCODING.sizes)
    return table[tuple(np.moveaxis(ENCODING.positions(points), -1, 0))] + points[:, 0] ** 2


def changes(points):
    """By the loop: each point with one choice that it has at another option."""
    for row, point in enumerate(points):
        for i, size in enumerate(ENCODING.sizes):
            here = ENCODING.positions(point)
            for option in set(range(size)) - {here[i]} if ENCODING.existing(point)[3 + i] else ():
                moved = here.copy()
                moved[i] = option
                yield row, point[:3], moved


def test_others_are_all_points_with_one_choice_changed_that_is_there():
    points = ENCODING.snapped(drawn(8))
    found, made_of = ENCODING.others(points)
    expected = {(row, *channels, *moved) for row, channels, moved in changes(points)}
    positions = ENCODING.positions(found)
    assert {(row, *p[:3], *o) for row, p, o in zip(made_of, found, positions, strict=True)} == expected
    assert len(found) == len(expected) < 8 * sum(size - 1 for size in ENCODING.sizes)
    np.testing.assert_array_equal(ENCODING.snapped(found), found)


def network_value(points):
    """Of the networks, whatever their points."""
    return nested.error(nested.subnets(points)) + np.sin(3 * nested.cost(nested.subnets(points)))


def least_change(points):
    """The lowest value among the changes of each point."""
    found, made_of = ENCODING.others(points)
    return np.array([network_value(found)[made_of == row].min() for row in range(len(points))])


def test_exchange_ends_where_no_single_change_is_better():
    start = drawn(20)
    found = exchanged(network_value, start, ENCODING, rounds=50)
    assert (network_value(found) <= least_change(found)).all()
    assert (network_value(found) <= network_value(start)).all()
    np.testing.assert_array_equal(found[:, :3], start[:, :3])


def test_exchange_takes_the_best_change_of_each_round():
    start = ENCODING.snapped(drawn(10))
    one = exchanged(network_value, start, ENCODING, rounds=1)
    np.testing.assert_array_equal(network_value(one), np.minimum(least_change(start), network_value(start)))


def test_exchange_finds_the_best_of_all_options_of_a_tiny_space():
    """Three choices, whose effects interact a little."""
    sizes = (3, 4, 3)
    encoding = Encoding(1, sizes, (False, True, False), LOW, lambda rows: np.ones(rows.shape, bool))
    rng = np.random.default_rng(1)
    table = sum(np.ix_(*(rng.normal(size=size) for size in sizes))) + 0.1 * rng.normal(size=sizes)

    def value(points):
        return table[tuple(np.moveaxis(encoding.positions(points), -1, 0))]

    found = exchanged(value, np.random.default_rng(0).uniform(LOW, 1, (12, 4)), encoding, rounds=10)
    assert value(found).tolist() == [table.min()] * 12


def test_exchange_of_choices_with_one_option_leaves_all_as_it_is():
    encoding = Encoding(1, (1,), (False,), LOW, lambda rows: np.ones(rows.shape, bool))
    start = np.array([[0.5, 0.625]])
    assert exchanged(lambda points: points[:, 0], start, encoding, rounds=3).tolist() == start.tolist()


# The search


@pytest.mark.parametrize("cost_model", ["gp", "exact"])
def test_descents_move_widths_alone(cost_model):
    x = drawn(40)
    cost = lambda points: nested.cost(nested.subnets(points)) / 100  # noqa: E731
    loss = gp.fit(x, nested.error(nested.subnets(x)), Encoded(Matern(), ENCODING), np.random.default_rng(0))
    price = gp.fit(x, cost(x), Encoded(AdditiveMatern(), ENCODING), np.random.default_rng(0))
    bounds = [bayes.Bound(process, 0.3) for process in (loss, price)]
    if cost_model == "exact":
        bounds[1] = TrueCost(cost, 0.0, 1.0, np.full(DIMS, LOW), groups=3)
    scalar = Tchebyshev(*bounds, -3.0, ENCODING)
    starts = drawn(5, seed=1)
    ends = scalar._descended(0.5, starts, np.full(DIMS, LOW))
    np.testing.assert_allclose(ends[:, 3:], starts[:, 3:], rtol=1e-12)
    assert (ends[:, 0] != starts[:, 0]).all()
    chosen = scalar.minimise(0.5, starts, np.full(DIMS, LOW))
    reached = scalar.pieces(chosen[None], 0.5)[0].max()
    assert reached <= scalar.pieces(ends, 0.5)[0].max(axis=0).min() + 1e-12


def test_points_between_two_take_an_option_of_either_and_never_one_between():
    a, b = point(depth=0, first=0, second=0), point(depth=2, first=2, second=3)
    b[:3] = 1
    for target in np.linspace(0.1, 1.2, 40):
        found = segment.nearest_between(
            lambda points: nested.cost(nested.subnets(points)) / 100, a, b, target, groups=3
        )
        options = ENCODING.positions(found)
        ends = np.stack([ENCODING.positions(a), ENCODING.positions(b)])
        assert (options == ends).any(axis=0).all()


def test_first_proposals_mix_options_without_an_order_and_no_others():
    rng = np.random.default_rng(0)
    first = np.array([bayes.prior(i, DIMS, LOW, rng, ENCODING) for i in range(bayes.PRIOR_POINTS)])
    options = ENCODING.positions(first)
    assert (first[:, [0, 1, 2, 3, 6]] == first[:, :1]).all()
    assert set(options[:, 1]) == {0, 1, 2}
    assert set(options[:, 2]) == {0, 1, 2, 3}
    assert bayes.prior(bayes.PRIOR_POINTS, DIMS, LOW, rng, ENCODING).tolist() == [1] * DIMS


OPERATORS = tuple(Choice(f"operator{i}", tuple("abcde"), ordered=False) for i in range(3))
DEPTHS = tuple(Choice(f"depth{i}", ("1", "2", "3")) for i in range(2))
MIXED = Space(
    tuple(Group(f"g{i}", 64) for i in range(4)), Rounding("truncate"), LOW, choices=(*OPERATORS, *DEPTHS)
)


class Made:
    """An objective over `MIXED`: arbitrary numbers by operator for loss and cost; widths and depths help and cost."""

    def __init__(self, seed):
        rng = np.random.default_rng([seed, 7])
        self.gain, self.effect = 0.3 * rng.uniform(0.3, 1, 4), 0.5 * rng.normal(size=(3, 5))
        self.deep, self.price = 0.5 * rng.uniform(0.3, 1, 2), rng.uniform(0.5, 1.5, (3, 5))

    def loss(self, rows):
        operators = self.effect[np.arange(3), rows[..., 4:7]].sum(-1)
        return 64 * (self.gain / rows[..., :4]).sum(-1) + operators - rows[..., 7:] @ self.deep

    def cost(self, rows):
        rows = np.asarray(rows)
        operators = self.price[np.arange(3), rows[..., 4:7]].sum(-1)
        return rows[..., :4].sum(-1) / 64 + operators + 0.5 * rows[..., 7:].sum(-1)

    def found(self, seed, encoding):
        """The lowest loss within .6 of the full network's cost, of 60 trials."""
        budget = 0.6 * float(self.cost(MIXED.largest))
        options = BayesOptions(raw_samples=128, restarts=2, iterations=4)
        searcher = mobo(
            lambda fractions: MIXED.layerwise(np.clip(fractions, LOW, 1)),
            self.cost,
            MIXED.largest,
            LOW,
            budgets=[budget],
            trials=60,
            options=options,
            seed=seed,
            encoding=encoding,
        )
        state = searcher.init()
        while not searcher.done(state):
            state = searcher.tell(state, self.loss(searcher.ask(state)))
        (best,) = searcher.found(state).values()
        return float(self.loss(best))


@pytest.mark.slow
def test_encoded_search_finds_better_subnets_than_the_plain_one():
    encoded, plain = (
        np.array([Made(seed).found(seed, encoding) for seed in range(5)])
        for encoding in (nested.encoding(MIXED), None)
    )
    assert (encoded < plain).sum() >= 4
    assert (plain - encoded).mean() > 0.3, "in a loss whose operators alone have a deviation of .9"
