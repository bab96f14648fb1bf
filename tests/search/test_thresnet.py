"""ThresNet's layers, and that both policies draw from the distribution whose log-probability they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.search.thresnet import Continuous, Discrete, ThresNet, head_widths

DRAWS = 20_000


def alphas(*channels):
    rng = np.random.default_rng(0)
    return [rng.normal(size=count).astype(np.float32) for count in channels]


@pytest.mark.parametrize(
    ("channels", "widths"),
    [(16, (32, 64, 128)), (32, (64, 128)), (64, (128,)), (24, (48, 96, 128)), (100, (128,)), (512, (128,)),
     (1, (2, 4, 8, 16, 32, 64, 128))],
)  # fmt: skip
def test_head_doubles_from_its_channels_to_128(channels, widths):
    assert head_widths(channels) == widths


def test_layers_of_as_many_channels_share_a_head_and_all_share_the_trunk():
    net = ThresNet((16, 64, 16), outputs=5)
    params = net.init(jax.random.key(0), alphas(16, 64, 16))["params"]
    shapes = {
        part: [layer["kernel"].shape for _, layer in sorted(params[part].items())]
        for part in ("heads_16", "heads_64", "trunk")
    }
    assert shapes == {
        "heads_16": [(16, 32), (32, 64), (64, 128)],
        "heads_64": [(64, 128)],
        "trunk": [(128, 64), (64, 16)],
    }
    assert params["last"]["kernel"].shape == (16, 5)
    assert sorted(params) == ["heads_16", "heads_64", "last", "trunk"]
    a, b, c = alphas(16, 64, 16)
    apart = net.apply({"params": params}, [a, b, c])
    np.testing.assert_array_equal(net.apply({"params": params}, [c, b, a])[::-1], apart)
    assert np.unique(np.asarray(apart), axis=0).shape == (3, 5)  # each layer its own outputs


def test_outputs_are_those_of_the_formula():
    """max(0, x W + b) for each layer of head and trunk, and x W + b at the end."""
    net = ThresNet((32,), outputs=2)
    (x,) = alphas(32)
    params = net.init(jax.random.key(0), [x])["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases too
    found = net.apply({"params": params}, [x])[0]
    for part in ("heads_32", "trunk"):
        for _, layer in sorted(params[part].items()):
            x = np.maximum(0, x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]))
    expected = x @ np.asarray(params["last"]["kernel"]) + np.asarray(params["last"]["bias"])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_discrete_samples_follow_the_softmax_whose_logarithm_is_given():
    policy = Discrete((0.5, 0.6, 0.7))
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]], np.float32)) + 3
    rng = np.random.default_rng(0)
    actions = np.stack([policy.sample(logits, rng) for _ in range(DRAWS)])
    shares = [np.bincount(layer, minlength=3) / DRAWS for layer in actions.T]
    np.testing.assert_allclose(shares, [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]], atol=0.015)
    np.testing.assert_allclose(
        policy.log_prob(jnp.asarray(logits), jnp.array([2, 1])), np.log([0.5, 0.2]), rtol=1e-5
    )
    np.testing.assert_array_equal(policy.thresholds(np.array([2, 0])), [0.7, 0.5])


def test_continuous_samples_follow_the_normal_whose_log_density_is_given():
    """Raw log deviations 0 and 10: deviations exp(2 tanh(0)) = 1 and exp(2 tanh(5)) = 7.3884."""
    policy = Continuous(0.55, 0.75)
    outputs = np.array([[1.0, 0.0], [-2.0, 10.0]], np.float32)
    deviations = np.array([1.0, 7.3884])
    rng = np.random.default_rng(0)
    actions = np.stack([policy.sample(outputs, rng) for _ in range(DRAWS)])
    np.testing.assert_allclose(actions.mean(0), [1, -2], atol=0.15)
    np.testing.assert_allclose(actions.std(0), deviations, rtol=0.02)
    x = np.array([0.3, 4.0])
    expected = -0.5 * ((x - [1, -2]) / deviations) ** 2 - np.log(deviations) - 0.5 * np.log(2 * np.pi)
    found = policy.log_prob(jnp.asarray(outputs), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_continuous_thresholds_are_sigmoids_between_the_bounds():
    """sigmoid(log 3) = 3 / 4, so .55 + .75 * .2 = .7."""
    actions = np.array([0.0, np.log(3), -1e4, 1e4], np.float32)
    found = Continuous(0.55, 0.75).thresholds(actions)
    np.testing.assert_allclose(found, [0.65, 0.7, 0.55, 0.75], rtol=1e-6)
    assert found.dtype == np.float64
