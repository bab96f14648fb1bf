"""The Bayesian optimiser: hits its targets, finds known fronts, survives poisoned histories."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from scipy import optimize, stats
from threadpoolctl import threadpool_info, threadpool_limits

from slimjax.bench import search as bench
from slimjax.errors import UserError
from slimjax.search import bayes, pareto, segment
from slimjax.search.acquisition import Tchebyshev, TrueCost
from slimjax.search.bayes_options import BayesOptions
from slimjax.verbs import cli

LOW = 0.25


def visited(n, dims, seed=0):
    """A made-up network, widths [n, d] and losses [n]."""
    rng = np.random.default_rng(seed)
    chain = bench.Chain.drawn(dims, rng)
    widths = bench.visited(chain, n, rng)
    return chain, widths, chain.loss(widths, rng)


def proposal(n=30, dims=6, seed=0, **options):
    chain, widths, losses = visited(n, dims, seed)
    rng = np.random.default_rng(seed + 100)
    return bayes.propose(widths, losses, chain.cost, bench.LOW, rng, BayesOptions(**options))


class Known:
    """Loss sum a / w and cost mean w, whose front is known: w is in proportion to sqrt(a) within its bounds."""

    def __init__(self, dims):
        self.dims, self.gain = dims, np.random.default_rng(0).uniform(0.05, 1, dims) ** 2
        self.reference = np.array([self.loss(np.full(dims, LOW)), 1.0])

    def loss(self, widths):
        return (self.gain / widths).sum(axis=-1)

    def cost(self, widths):
        return widths.mean(axis=-1)

    def share(self, widths):
        """The dominated area over that of the true front."""
        front = np.clip(np.sqrt(self.gain / np.geomspace(1e-3, 1e2, 5000)[:, None]), LOW, 1)
        areas = [
            pareto.hypervolume(np.stack([self.loss(w), self.cost(w)], axis=1), self.reference)
            for w in (widths, front)
        ]
        return areas[0] / areas[1]

    def search(self, count, **options):
        """Widths [count, d] as the optimiser visits them."""
        rng, widths, start = np.random.default_rng(0), [], None
        for i in range(count):
            new = bayes.prior(i, self.dims, LOW, rng)
            if new is None:
                seen = np.array(widths)
                found = bayes.propose(
                    seen, self.loss(seen), self.cost, LOW, rng, BayesOptions(**options), start
                )
                new, start = found.widths, found.warm
            widths.append(new)
        return np.array(widths)


# Options


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("beta", -1, "a number of at least 0"),
        ("beta", float("nan"), "a number of at least 0"),
        ("baseline", "low", "a finite number"),
        ("iterations", 0, "a whole number of at least 1"),
        ("iterations", 2.5, "a whole number of at least 1"),
        ("tolerance", 0, "a number above 0 and up to 1"),
        ("restarts", True, "a whole number of at least 1"),
        ("raw_samples", 0, "a whole number of at least 1"),
        ("targets", 1, "a whole number of at least 2"),
        ("cost_model", "table", "one of gp, exact"),
        ("bound", "mean", "one of upper, lower"),
        ("ard", 1, "True or False"),
        ("target_rule", "area", "one of uniform, pareto"),
        ("history_cap", 1, "a whole number of at least 2, or None"),
    ],
)
def test_illegal_option_is_refused_by_name(option, value, expected):
    with pytest.raises(UserError, match=rf"^{option}: expected {expected}, got {value!r}\."):
        BayesOptions(**{option: value})


def test_first_proposals_are_uniform_widths_and_the_full_network():
    rng = np.random.default_rng(0)
    first = [bayes.prior(i, 3, 0.42, rng) for i in range(23)]
    widths = np.array(first[:20])
    assert (widths == widths[:, :1]).all()
    assert widths.min() >= 0.42
    assert len(np.unique(widths)) == 20
    assert first[20].tolist() == [1, 1, 1]
    assert first[21:] == [None, None]


def test_first_proposals_respect_the_smallest_width_of_each_dimension():
    low = np.array([0.2, 0.9])
    widths = np.array([bayes.prior(0, 2, low, np.random.default_rng(seed)) for seed in range(50)])
    assert (widths >= low).all()
    assert widths[:, 0].min() < 0.4


# Targets


@pytest.mark.parametrize(("n", "dims"), [(20, 12), (60, 30), (100, 55), (200, 12)])
def test_proposals_hit_their_targets(n, dims):
    found = [proposal(n, dims, seed) for seed in range(6)]
    assert all(p.hit for p in found)
    assert all(abs(p.ratio - p.target) <= 0.02 for p in found)
    assert sum(p.how == "searched" for p in found) >= 4, "weights alone hit most"


def test_ratio_is_the_true_cost_of_widths_within_the_box():
    chain, widths, losses = visited(30, 6)
    found = bayes.propose(widths, losses, chain.cost, bench.LOW, np.random.default_rng(1), BayesOptions())
    assert found.ratio == chain.cost(found.widths)
    assert ((found.widths >= bench.LOW) & (found.widths <= 1)).all()


def test_exact_cost_model_hits_too():
    found = [proposal(40, 12, seed, cost_model="exact") for seed in range(4)]
    assert all(p.hit and p.warm.cost is None for p in found)


@pytest.mark.parametrize("options", [{"bound": "lower"}, {"ard": True}, {"target_rule": "pareto"}])
def test_variants_hit_too(options):
    assert all(proposal(40, 8, seed, **options).hit for seed in range(3))


def test_where_no_weight_hits_a_point_between_candidates_does():
    """One weight a proposal; the segment then goes to a corner."""
    found = [proposal(seed=seed, iterations=1, tolerance=0.01) for seed in range(8)]
    missed = [p for p in found if p.how == "segment"]
    assert len(missed) >= 4
    assert all(p.hit for p in missed)


def test_without_segments_the_last_candidate_is_taken():
    options = {"iterations": 1, "tolerance": 0.01}
    pairs = [(proposal(seed=s, segment=False, **options), proposal(seed=s, **options)) for s in range(4)]
    missed = [last for last, other in pairs if other.how == "segment"]
    assert missed
    assert not any(p.hit for p in missed)
    assert {p.how for p in missed} == {"searched"}


@pytest.mark.parametrize(
    ("baseline", "minimiser", "weights"),
    [
        (-3, lambda weight: 1 - weight, [0.5, 0.75, 0.625, 0.6875]),
        (0, lambda weight: 1 - weight, [0.5, 0.75, 0.625, 0.6875]),
        (5, lambda weight: weight, [0.5, 0.25, 0.375, 0.3125]),
    ],
)
def test_bisection_turns_round_where_the_baseline_is_above_0(baseline, minimiser, weights):
    """Towards a cost of .3, which is the width itself; within .02 of it after three halvings."""
    asked = []

    def best(weight):
        asked.append(weight)
        return np.array([minimiser(weight)])

    tried = bayes.weigh(best, lambda widths: widths[0], 0.3, BayesOptions(baseline=baseline))
    assert asked == weights
    assert [ratio for _, ratio in tried] == [minimiser(weight) for weight in weights]


def test_a_baseline_above_everything_visited_hits_as_many_targets():
    """By weights alone: the authors' default of 5, and the -3 of their commands."""
    hits = {
        baseline: sum(proposal(40, 8, seed, baseline=baseline, segment=False).hit for seed in range(12))
        for baseline in (5, -3)
    }
    assert min(hits.values()) >= 9


def test_nearest_between_finds_the_target_of_a_cost_that_is_not_monotone():
    def cost(widths):
        return np.abs(widths - 0.5).sum(axis=-1)

    found = segment.nearest_between(cost, np.array([0.3]), np.array([1.0]), 0.4)
    np.testing.assert_allclose(found, 0.9, atol=1e-3)


def test_nearest_between_goes_where_all_channels_would_round_at_once():
    def cost(widths):
        return np.floor(10 * widths + 1e-9).sum(axis=-1) / 80

    found = segment.nearest_between(cost, np.full(8, 0.5), np.ones(8), 0.95)
    assert cost(found) == pytest.approx(0.95, abs=1 / 80)


def test_nearest_between_reaches_its_ends_exactly():
    """A width that a rounding error takes below a whole channel would truncate to a channel less."""

    def cost(widths):
        return widths.mean(axis=-1)

    for a, b in np.random.default_rng(0).uniform(0.25, 1, (50, 2, 6)):
        low, high = np.minimum(a, b), np.maximum(a, b)
        assert segment.nearest_between(cost, low, high, cost(high)).tolist() == high.tolist()
        assert segment.nearest_between(cost, low, high, cost(low)).tolist() == low.tolist()


def test_visited_costs_are_uniform_where_random_widths_are_not():
    """Claim 18 of the paper. Targets are uniform, and random widths all cost about as much as their mean."""
    known = Known(12)
    ratios = known.cost(known.search(81)[21:])
    drawn = known.cost(np.random.default_rng(0).uniform(LOW, 1, (60, 12)))
    uniform = stats.uniform(LOW, 1 - LOW).cdf
    assert stats.kstest(ratios, uniform).pvalue > 0.05
    assert stats.kstest(drawn, uniform).pvalue < 1e-6


def test_random_weights_have_no_target():
    found = proposal(random_lambda=True)
    assert (found.target, found.hit, found.iterations) == (None, False, 1)


def test_pareto_targets_go_by_the_height_of_the_front():
    points = np.array([[3.0, 0.2], [2.0, 0.4], [1.0, 0.8], [2.5, 0.9]])
    weights = bayes.target_weights(points, np.array([0.1, 0.3, 0.5, 1.0]))
    np.testing.assert_allclose(weights, 0.9 * np.array([2, 2, 1, 0]) / 5 + 0.1 / 4)


@pytest.mark.parametrize("losses", [[], [1.0, 1.0], [1e308, -1e308]])
def test_pareto_targets_of_a_front_without_heights_are_uniform(losses):
    points = np.column_stack([losses, np.arange(1.0, len(losses) + 1)])
    np.testing.assert_allclose(bayes.target_weights(points, np.array([0.5, 1.0, 3.0])), 1 / 3)


def test_capped_history_keeps_the_front_and_the_newest():
    losses = np.array([1.0, 9, 9, 9, 0.5, 9])
    history = bayes.History(np.arange(6.0)[:, None], losses, np.array([0.3, 0.5, 0.5, 0.6, 0.9, 0.95]))
    assert history.newest(4).widths.ravel().tolist() == [0, 3, 4, 5]
    assert history.newest(1).widths.ravel().tolist() == [4]
    assert history.newest(None) is history


def test_cap_bounds_what_is_fitted(monkeypatch):
    sizes = []
    fit = bayes.gp.fit
    monkeypatch.setattr(bayes.gp, "fit", lambda x, *rest: sizes.append(len(x)) or fit(x, *rest))
    assert proposal(30, history_cap=12).hit
    assert sizes == [12, 12]


# Scalarisation


class Bowl:
    """A quadratic around a centre."""

    def __init__(self, *centre):
        self.centre = np.array(centre)

    def values(self, points):
        return ((points - self.centre) ** 2).sum(axis=-1)

    def slopes(self, points):
        return self.values(points), 2 * (points - self.centre)


class Line:
    """The sum of the coordinates, times a slope, from a height on."""

    def __init__(self, height, slope):
        self.height, self.slope = height, slope

    def values(self, points):
        return self.height + self.slope * points.sum(axis=-1)

    def slopes(self, points):
        return self.values(points), np.full_like(points, self.slope)


def test_scalarisation_is_the_papers():
    scalar = Tchebyshev(Bowl(0.0), Bowl(0.0), baseline=-3)
    a, c = 0.75 * (0.5 + 3), 0.25 * (2.0 + 3)
    np.testing.assert_allclose(
        scalar.scalar(np.array([0.5]), np.array([2.0]), 0.25), max(a, c) + 1e-6 * (a + c), rtol=1e-12
    )


@pytest.mark.parametrize("lam", [0.1, 0.5, 0.52, 0.9])
def test_descent_finds_the_minimum_on_creases_and_at_the_bounds(lam):
    low = np.array([0.3, 0.3, 0.3])
    scalar = Tchebyshev(Bowl(0.9, 0.8, 0.1), Bowl(0.4, 0.6, 0.2), baseline=-3)

    def value(point):
        return scalar.scalar(scalar.loss.values(point), scalar.cost.values(point), lam)

    # Smooth program: minimise t with both pieces below it.
    best = optimize.minimize(
        lambda v: v[3],
        np.array([0.5, 0.5, 0.5, 5]),
        bounds=[(0.3, 1)] * 3 + [(None, None)],
        constraints={"type": "ineq", "fun": lambda v: v[3] - scalar.pieces(v[None, :3], lam)[0][:, 0]},
        options={"ftol": 1e-12},
    )
    starts = np.random.default_rng(0).uniform(low, 1, (3, 3))
    found = scalar.minimise(lam, starts, low)
    assert value(found) == pytest.approx(value(best.x[:3]), abs=1e-3)
    assert value(found) >= value(best.x[:3]) - 1e-6


@pytest.mark.parametrize(
    ("baseline", "lam", "width"), [(-3, 0.5, 0.5), (-3, 0.48, 0.64), (5, 0.5, 0.5), (5, 0.52, 0.68)]
)
def test_more_weight_on_the_cost_makes_the_minimiser_cheaper_below_and_dearer_above_the_baseline(
    baseline, lam, width
):
    """Loss 1 - w and cost w cross where (1 - lam)(1 - w - b) = lam (w - b): w = (1 - lam)(1 - b) + lam b."""
    scalar = Tchebyshev(Line(1.0, -1.0), Line(0.0, 1.0), baseline)
    found = scalar.minimise(lam, np.array([[0.2]]), np.array([0.0]))
    np.testing.assert_allclose(found, [width], atol=1e-4)


def test_slopes_of_the_true_cost_see_over_its_steps():
    def cost(widths):
        return np.floor(64 * widths).sum(axis=-1) / 128

    truth = TrueCost(cost, shift=0.5, scale=2.0, low=np.array([0.25, 0.25]))
    values, slopes = truth.slopes(np.array([[0.6, 0.7], [0.25, 1.0]]))
    np.testing.assert_allclose(values, (cost(np.array([[0.6, 0.7], [0.25, 1.0]])) - 0.5) / 2)
    np.testing.assert_allclose(slopes, 0.25, atol=0.1)  # by single steps: 0, or 1 / 128 over next to nothing


def test_quasi_random_points_are_even_over_the_box():
    """Of 64 Sobol points, each 64th of every coordinate has one; fewer points are the first of them."""
    low = np.array([0.2, 0.6])
    points = bayes.quasi_random(low, 64, np.random.default_rng(0))
    cells = np.sort(np.floor(64 * (points - low) / (1 - low)).astype(int), axis=0)
    np.testing.assert_array_equal(cells, np.stack([np.arange(64)] * 2, axis=1))
    np.testing.assert_array_equal(bayes.quasi_random(low, 40, np.random.default_rng(0)), points[:40])
    assert (bayes.quasi_random(low, 64, np.random.default_rng(1)) != points).all()


@pytest.mark.parametrize("restarts", [3, 50])
def test_descents_begin_at_quasi_random_points_the_best_at_their_weight_among_them(monkeypatch, restarts):
    """So many of them, or all of 16."""
    begun = []
    real = Tchebyshev.minimise
    monkeypatch.setattr(
        Tchebyshev,
        "minimise",
        lambda self, *arguments: begun.append((self, *arguments)) or real(self, *arguments),
    )
    proposal(raw_samples=16, restarts=restarts, segment=False, tolerance=1e-9)
    assert len(begun) == 10
    every = {tuple(row) for _, _, starts, _ in begun for row in starts}
    assert len(every) <= 16, "one set of points serves all weights"
    points = np.array(sorted(every))
    for scalar, weight, starts, _ in begun:
        best = scalar.scalar(scalar.loss.values(points), scalar.cost.values(points), weight).argmin()
        assert len({tuple(row) for row in starts}) == min(restarts, 16)
        assert points[best].tolist() in starts.tolist()


def test_starts_are_drawn_by_their_values_and_the_lowest_is_always_among_them():
    """Of the values 0, 1, 2, z is -1, 0, 1: the other start is value 1 with the probability p1 / (p1 + p2).

    p1 and p2 are as 1 to exp(-1). Where 1 and 2 are drawn, the lowest takes the second one's place; which makes it
    p0 p1 / (p1 + p2) + p1 = p1 / (p1 + p2).
    """
    rng = np.random.default_rng(0)
    drawn = np.array([np.sort(bayes.boltzmann(np.arange(3.0), 2, rng)) for _ in range(4000)])
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 1] == 1).mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.025)


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [1e308, -1e308, 0.0]])
def test_all_values_are_starts_where_they_are_few(values):
    chosen = bayes.boltzmann(np.array(values), 5, np.random.default_rng(0))
    assert sorted(chosen.tolist()) == list(range(len(values)))


# The whole


def test_proposal_is_deterministic_in_its_arguments():
    first, second = proposal(seed=3), proposal(seed=3)
    for field in dataclasses.fields(bayes.Proposal):
        if "seconds" not in field.name:
            assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name
    assert not np.array_equal(first.widths, proposal(seed=4).widths)


def test_warm_start_is_used_and_ends_where_a_cold_one_does(monkeypatch):
    chain, widths, losses = visited(60, 6)
    starts = []
    fit = bayes.gp.fit
    monkeypatch.setattr(bayes.gp, "fit", lambda *arguments: starts.append(arguments[4]) or fit(*arguments))

    def again(start):
        rng = np.random.default_rng(1)
        return bayes.propose(widths, losses, chain.cost, bench.LOW, rng, BayesOptions(), start)

    cold = again(None)
    near = bayes.Warm(*(bayes.gp.Hyper.of_log(hyper.log() + 0.2) for hyper in cold.warm))
    warm = again(near)
    assert starts == [None, None, *near]
    for ours, theirs in zip(warm.warm, cold.warm, strict=True):
        np.testing.assert_allclose(ours.log(), theirs.log(), atol=0.1)
    assert warm.target == cold.target
    assert warm.hit


def test_a_known_front_is_found_with_the_lower_bound_and_neared_with_the_authors():
    """Area against the true front's, at one budget; the upper bound punishes whatever is not known."""
    known = Known(4)
    upper, lower = (known.share(known.search(70, bound=bound)) for bound in ("upper", "lower"))
    rng = np.random.default_rng(0)
    random = max(known.share(rng.uniform(LOW, 1, (70, 4))) for _ in range(5))
    uniform = known.share(np.repeat(np.linspace(LOW, 1, 200)[:, None], 4, axis=1))
    assert lower >= 0.95
    assert lower > random
    assert upper > uniform + 0.02, "it leaves the uniform widths that it begins with"
    assert upper < lower


def test_blas_takes_one_thread_while_a_proposal_is_made_and_its_own_again_after(monkeypatch):
    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    within = []
    fit = bayes.gp.fit
    monkeypatch.setattr(bayes.gp, "fit", lambda *arguments: within.append(threads()) or fit(*arguments))
    with threadpool_limits(2, user_api="blas"):
        proposal()
        assert (within, threads()) == ([{1}, {1}], {2})


def test_no_history_gives_a_random_proposal_of_the_target_cost(caplog):
    chain = bench.Chain.drawn(5, np.random.default_rng(0))

    def cost(widths):
        assert widths.size, "a cost function need not take nothing"
        return chain.cost(widths)

    def first():
        none = np.empty((0, 5)), np.empty(0)
        return bayes.propose(*none, cost, bench.LOW, np.random.default_rng(0), BayesOptions())

    with caplog.at_level(logging.WARNING):
        found = first()
    assert (found.how, found.hit, found.warm) == ("random", True, None)
    assert np.array_equal(found.widths, first().widths)
    assert "no trials yet; a random candidate instead" in caplog.text


def poisoned(kind):
    _, widths, losses = visited(25, 5)
    if kind == "equal":
        widths[:] = widths[0]
    elif kind == "nearly equal":
        widths[1:] = widths[0] + 1e-9 * np.arange(1, 25)[:, None]
    elif kind == "constant loss":
        losses[:] = 2.0
    elif kind == "one":
        widths, losses = widths[:1], losses[:1]
    elif kind == "all failed":
        losses[:] = np.nan
    elif kind == "huge loss":
        losses[3] = 1e300
    elif kind == "width that is no number":
        widths[3, 2] = np.nan
    return widths, losses


@pytest.mark.parametrize("target_rule", ["uniform", "pareto"])
@pytest.mark.parametrize("cost_model", ["gp", "exact"])
@pytest.mark.parametrize(
    "kind",
    ["equal", "nearly equal", "constant loss", "one", "all failed", "huge loss", "width that is no number"],
)
def test_poisoned_history_still_gives_a_proposal(kind, cost_model, target_rule):
    chain, _, _ = visited(25, 5)
    options = BayesOptions(cost_model=cost_model, target_rule=target_rule)
    found = bayes.propose(*poisoned(kind), chain.cost, bench.LOW, np.random.default_rng(0), options)
    assert ((found.widths >= bench.LOW) & (found.widths <= 1)).all()
    assert found.hit


def test_failed_trials_are_left_out_and_counted(caplog):
    chain, widths, losses = visited(30, 5)
    failed = losses.copy()
    failed[[3, 7]] = np.nan, np.inf
    good = np.isfinite(failed)

    def widths_of(*data):
        return bayes.propose(*data, chain.cost, bench.LOW, np.random.default_rng(0), BayesOptions()).widths

    with caplog.at_level(logging.WARNING):
        found = widths_of(widths, failed)
    assert np.array_equal(found, widths_of(widths[good], losses[good]))
    assert "2 of 30 trials are not finite; left out" in caplog.text


def test_failed_fit_is_logged_and_gives_a_random_proposal(monkeypatch, caplog):
    def fail(*arguments):
        raise bayes.gp.FitError("the likelihood is not finite")

    monkeypatch.setattr(bayes.gp, "fit", fail)
    with caplog.at_level(logging.WARNING):
        found = proposal()
    assert (found.how, found.hit) == ("random", True)
    assert "the likelihood is not finite; a random candidate instead" in caplog.text


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"widths \[n, d\] and losses \[n\]"):
        bayes.propose(np.ones((3, 2)), np.ones(2), np.sum, 0.5, np.random.default_rng(0), BayesOptions())


def test_bench_search_answers(capsys):
    arguments = ["bench", "search", "--history", "22", "--dims", "4", "--repeats", "3", "--warm", "--json"]
    assert cli.main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["history"], answer["dims"], answer["hit_rate"]) == (22, 4, 1.0)
    assert sum(answer["how"].values()) == 3
    assert answer["proposal_seconds"] >= answer["fit_seconds"] > 0


def test_bench_search_refuses_too_little(capsys):
    assert cli.main(["bench", "search", "--dims", "1"]) == 2
    assert "--dims: expected a whole number of at least 2, got 1" in capsys.readouterr().err
