"""Gaussian processes: against scikit-learn, closed forms and finite differences."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel
from sklearn.gaussian_process.kernels import Matern as SklearnMatern

from slimjax.search import gp, kernels
from slimjax.search.kernels import AdditiveMatern, Matern

KERNELS = {"matern": Matern(), "ard": Matern(ard=True), "additive": AdditiveMatern()}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def matern(r):
    z = math.sqrt(5) * r
    return (1 + z + z**2 / 3) * np.exp(-z)


def covariance(kernel, a, b, lengthscale):
    """By the definition: a [m, d], b [n, d] to [m, n]."""
    scaled = np.abs(a[:, None] - b) / lengthscale
    return matern(scaled).sum(-1) if kernel == AdditiveMatern() else matern(np.linalg.norm(scaled, axis=-1))


def data(n=40, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.25, 1, (n, d))
    y = np.sin(3 * x).sum(axis=1) + x[:, 0] * x[:, 1] + 0.05 * rng.normal(size=n)
    return x, (y - y.mean()) / max(y.std(), 1e-12)


def hyper_of(kernel, d, noise=0.02):
    lengthscales = np.linspace(0.4, 0.9, kernel.scales(d)).tolist()
    return gp.Hyper(tuple(lengthscales), 1.7, noise)


def rng():
    return np.random.default_rng(0)


@every_kernel
@pytest.mark.parametrize("n", [3, 40, 300])
def test_covariances_are_those_of_the_definition(kernel, n, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 700)  # some blocks, and two threads
    x, _ = data(n)
    points, _ = data(17, seed=1)
    lengthscale = np.array(hyper_of(kernel, 4).lengthscale)
    expected = covariance(kernel, x, x, lengthscale)
    np.testing.assert_allclose(np.tril(kernel.gram(x, lengthscale)[0]), np.tril(expected), atol=1e-7)
    expected = covariance(kernel, points, x, lengthscale)
    np.testing.assert_allclose(kernel.cross(points, x, lengthscale), expected, atol=1e-7)
    np.testing.assert_allclose(kernel.cross_slopes(points, x, lengthscale)[0], expected, atol=1e-7)
    np.testing.assert_allclose(np.diagonal(covariance(kernel, x, x, lengthscale)), kernel.variance(4))


@pytest.mark.parametrize("ard", [False, True])
def test_posterior_and_likelihood_are_those_of_scikit_learn(ard):
    x, y = data()
    points, _ = data(25, seed=1)
    hyper = hyper_of(Matern(ard), 4)
    process, likelihood, _ = gp.likelihood_of(x, y, Matern(ard), hyper)
    scale = np.array(hyper.lengthscale) if ard else hyper.lengthscale[0]
    prior = ConstantKernel(hyper.outputscale, "fixed") * SklearnMatern(scale, "fixed", nu=2.5)
    oracle = GaussianProcessRegressor(prior + WhiteKernel(hyper.noise, "fixed"), alpha=0, optimizer=None)
    oracle.fit(x, y - process.mean)
    mean, deviation = process.posterior(points)
    expected_mean, expected_deviation = oracle.predict(points, return_std=True)
    np.testing.assert_allclose(mean - process.mean, expected_mean, atol=1e-9)
    latent = np.sqrt(
        expected_deviation**2 - hyper.noise
    )  # scikit-learn's is of a measurement, with its noise
    np.testing.assert_allclose(deviation, latent, atol=1e-7)
    assert likelihood == pytest.approx(oracle.log_marginal_likelihood_value_, abs=1e-8)


def test_additive_posterior_is_that_of_the_summed_covariance():
    x, y = data()
    points, _ = data(25, seed=1)
    hyper = hyper_of(AdditiveMatern(), 4)
    process = gp.condition(x, y, AdditiveMatern(), hyper)
    scale = hyper.lengthscale[0]
    inner = hyper.outputscale * covariance(AdditiveMatern(), x, x, scale) + hyper.noise * np.eye(len(x))
    cross = hyper.outputscale * covariance(AdditiveMatern(), points, x, scale)
    mean, deviation = process.posterior(points)
    np.testing.assert_allclose(
        mean, process.mean + cross @ np.linalg.solve(inner, y - process.mean), atol=1e-8
    )
    variance = hyper.outputscale * 4 - np.sum(cross * np.linalg.solve(inner, cross.T).T, axis=1)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-7)


def test_constant_is_the_generalised_least_squares_estimate():
    x, y = data()
    hyper = hyper_of(Matern(), 4)
    inner = hyper.outputscale * covariance(Matern(), x, x, hyper.lengthscale[0]) + hyper.noise * np.eye(
        len(x)
    )
    weights = np.linalg.solve(inner, np.ones(len(x)))
    assert gp.condition(x, y, Matern(), hyper).mean == pytest.approx(weights @ y / weights.sum())


def test_posterior_of_one_point_in_closed_form():
    hyper = gp.Hyper((0.5,), 2.0, 0.5)
    process = gp.condition(np.array([[0.4]]), np.array([0.7]), Matern(), hyper)
    mean, deviation = process.posterior(np.array([[0.4], [0.9]]))
    near = 2 * matern(1.0)
    np.testing.assert_allclose(mean, [0.7, 0.7])  # one point: the constant is it
    np.testing.assert_allclose(deviation**2, [2 - 4 / 2.5, 2 - near**2 / 2.5])


def test_posterior_of_two_points_in_closed_form():
    hyper = gp.Hyper((0.5,), 2.0, 0.5)
    process = gp.condition(np.array([[0.4], [0.9]]), np.array([1.0, -1.0]), Matern(), hyper)
    mean, deviation = process.posterior(np.array([[0.4]]))
    near = 2 * matern(1.0)
    np.testing.assert_allclose(mean, (2 - near) / (2.5 - near))
    inner = np.array([[2.5, near], [near, 2.5]])
    np.testing.assert_allclose(deviation**2, 2 - np.array([2, near]) @ np.linalg.solve(inner, [2, near]))


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 60])
def test_gradient_of_the_objective_is_its_slope(kernel, n):
    x, y = data(n)
    objective = gp._Objective(x, y, kernel)
    vector = hyper_of(kernel, 4).log()
    slope = optimize.approx_fprime(vector, lambda v: objective(v)[0], 1e-6)
    np.testing.assert_allclose(objective(vector)[1], slope, rtol=1e-4, atol=1e-4)


def test_priors_are_the_gamma_densities_of_the_paper():
    vector = np.log([0.4, 1.5, 0.02])
    value = 2 * math.log(0.4) - 6 * 0.4 + math.log(1.5) - 0.15 * 1.5 + 0.1 * math.log(0.02) - 0.05 * 0.02
    assert gp.log_prior(vector)[0] == pytest.approx(value)


@every_kernel
def test_slopes_of_the_posterior_are_its_differences(kernel):
    x, y = data(60)
    process = gp.condition(x, y, kernel, hyper_of(kernel, 4))
    points, _ = data(5, seed=1)
    mean, deviation, mean_slope, deviation_slope = process.posterior_slopes(points)
    np.testing.assert_allclose(np.stack([mean, deviation]), process.posterior(points), rtol=1e-9)
    for i, step in enumerate(1e-5 * np.eye(4)):
        above, below = np.array(process.posterior(points + step)), np.array(process.posterior(points - step))
        expected = (above - below) / 2e-5
        np.testing.assert_allclose(mean_slope[:, i], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(deviation_slope[:, i], expected[1], rtol=1e-4, atol=1e-6)


@every_kernel
@pytest.mark.parametrize("n", [30, 400])
def test_fit_is_where_no_random_start_finds_better(kernel, n):
    """Also beyond `SUBSET`, where a fit ends with few steps on all points."""
    x, y = data(n)
    objective = gp._Objective(x, y, kernel)
    found = objective(gp.fit(x, y, kernel, rng()).hyper.log())[0]
    others = []
    for seed in range(2):
        start = np.random.default_rng(seed).uniform(-1.5, 0.5, kernel.scales(4) + 2)
        others.append(objective(gp._minimum(objective, start))[0])
    assert found * n <= min(others) * n + 0.1, "in nats"


@every_kernel
def test_warm_start_ends_where_a_cold_one_does(kernel):
    x, y = data(300)
    cold = gp.fit(x, y, kernel, rng())
    near = gp.Hyper.of_log(cold.hyper.log() + 0.3)
    warm = gp.fit(x, y, kernel, np.random.default_rng(1), near)
    objective = gp._Objective(x, y, kernel)
    assert objective(warm.hyper.log())[0] * 300 == pytest.approx(
        objective(cold.hyper.log())[0] * 300, abs=0.1
    )
    points, _ = data(20, seed=1)
    np.testing.assert_allclose(warm.posterior(points)[0], cold.posterior(points)[0], atol=0.02)


def test_warm_start_of_another_kernel_is_a_cold_one():
    x, y = data(30)
    other = gp.Hyper((0.1, 0.2), 1.0, 0.1)
    assert gp.fit(x, y, Matern(), rng(), other).hyper == gp.fit(x, y, Matern(), rng()).hyper


def test_noise_is_never_below_the_authors_bound():
    x, _ = data(60)
    y = x.sum(axis=1) - x.sum(axis=1).mean()
    assert gp.fit(x, y / y.std(), AdditiveMatern(), rng()).hyper.noise >= 1e-4 * (1 - 1e-9)


@every_kernel
@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_equal_and_nearly_equal_points_are_fitted(kernel, spread):
    x, y = data(20)
    x = np.concatenate([x, np.repeat(x[:1], 10, axis=0) + spread * np.arange(10)[:, None]])
    process = gp.fit(x, np.concatenate([y, np.repeat(y[:1], 10)]), kernel, rng())
    assert np.isfinite(process.posterior(x)).all()


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 30])
def test_constant_data_are_fitted_by_the_constant(kernel, n):
    x, _ = data(n)
    mean, deviation = gp.fit(x, np.zeros(n), kernel, rng()).posterior(x)
    np.testing.assert_allclose(mean, 0, atol=1e-9)
    assert (deviation > 0).all()


def test_singular_covariance_takes_jitter():
    x, y = data(5)
    hyper = gp.Hyper((0.5,), 1.0, 1e-300)
    assert gp.condition(x, y, Matern(), hyper).jitter == 0
    process = gp.condition(np.concatenate([x, x]), np.concatenate([y, y]), Matern(), hyper)
    assert 0 < process.jitter <= 1e-3
    assert np.isfinite(process.posterior(x)).all()


def test_covariance_beyond_all_jitter_is_a_fit_error():
    @dataclasses.dataclass(frozen=True)
    class Negative(Matern):
        def gram(self, x, lengthscale):
            covariance, slopes = super().gram(x, lengthscale)
            return -covariance, slopes

    x, y = data(5)
    with pytest.raises(gp.FitError, match="not positive definite"):
        gp.fit(x, y, Negative(), rng())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_are_not_finite_are_a_fit_error(bad):
    x, y = data(5)
    y[2] = bad
    with pytest.raises(gp.FitError, match="5 points, 1 not finite"):
        gp.fit(x, y, Matern(), rng())


def test_no_data_are_a_fit_error():
    with pytest.raises(gp.FitError, match="0 points"):
        gp.fit(np.empty((0, 3)), np.empty(0), Matern(), rng())
