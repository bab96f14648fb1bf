"""REINFORCE: its gradient against that of the enumerated expectation, and rewards that rise on toy problems."""

import itertools

import jax
import numpy as np
import pytest

from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.errors import BadValue, RunError, UserError
from slimjax.search.reinforce import Controller
from slimjax.search.thresnet import ThresNet

CHANNELS = (4, 6)
RNG = np.random.default_rng(0)
ALPHAS = [RNG.normal(size=count) for count in CHANNELS]
REWARDS = RNG.normal(size=(3, 3)) - 1.0
"""By the actions of two layers, of three thresholds each."""

DISCRETE = {"channels": CHANNELS, "thresholds": (0.55, 0.65, 0.75)}
CONTINUOUS = {**DISCRETE, "policy": "continuous"}


def expected_reward(params):
    """By the chances of all nine pairs of actions."""
    logits = ThresNet(CHANNELS, 3).apply({"params": params}, [a.astype(np.float32) for a in ALPHAS])
    first, second = jax.nn.softmax(logits)
    return first @ REWARDS.astype(np.float32) @ second


def pairs(params):
    """The pairs of actions, with their chances."""
    logits = ThresNet(CHANNELS, 3).apply({"params": params}, [a.astype(np.float32) for a in ALPHAS])
    first, second = np.asarray(jax.nn.softmax(logits), np.float64)
    return [((i, j), first[i] * second[j]) for i, j in itertools.product(range(3), repeat=2)]


@pytest.mark.parametrize("baseline", [None, 0.9])
def test_expected_gradient_is_that_of_minus_the_expected_reward(baseline):
    """Adam's first mean is a tenth of the first gradient, so that of an update from new moments is read off it."""
    controller = Controller(**DISCRETE, baseline=baseline)
    arrays = controller.init(0)
    if baseline is not None:
        arrays = {**arrays, "baseline": np.float32(-0.7), "begun": np.array(True)}
    updates = [
        (controller.update(arrays, ALPHAS, np.array(actions, np.int32), REWARDS[actions]), chance)
        for actions, chance in pairs(arrays["params"])
    ]
    found = jax.tree.map(
        lambda *means: 10 * sum(m * chance for m, (_, chance) in zip(means, updates, strict=True)),
        *(update["optimizer"][0].mu for update, _ in updates),
    )
    exact = jax.grad(lambda params: -expected_reward(params))(arrays["params"])
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(exact)) > 0.1
    assert_trees_close(found, exact)


def test_update_goes_down_the_loss_by_the_learning_rate():
    """Adam's first step is the rate, against the sign of the gradient; a reward below 0 makes the actions rarer."""
    controller = Controller(**DISCRETE, learning_rate=1e-2)
    arrays, actions = controller.init(0), np.array([0, 2], np.int32)
    before = controller.log_prob(arrays["params"], ALPHAS, actions)
    for reward, sign in ((-1.0, -1), (1.0, 1)):
        found = controller.update(arrays, ALPHAS, actions, reward)
        slopes = jax.tree.map(lambda mean: 10 * mean, found["optimizer"][0].mu)
        steps = jax.tree.map(np.subtract, found["params"], arrays["params"])
        for step, slope in zip(jax.tree.leaves(steps), jax.tree.leaves(slopes), strict=True):
            moved = np.abs(slope) > 1e-4
            np.testing.assert_allclose(step[moved], -1e-2 * np.sign(slope[moved]), rtol=1e-2)
        assert sign * (controller.log_prob(found["params"], ALPHAS, actions) - before) > 0.01


def rewards(options, learning_rate, sign=1.0):
    """Means of the first and the last 40 rewards of 600 updates: minus the distance of both thresholds from .65.

    Args:
      sign: of what the controller is told.
    """
    controller = Controller(**options, learning_rate=learning_rate, baseline=0.9)
    arrays, found = controller.init(5), []
    for step in range(600):
        actions, thresholds = controller.propose(arrays, ALPHAS, step)
        found.append(-np.abs(thresholds - 0.65).sum())
        arrays = controller.update(arrays, ALPHAS, actions, sign * found[-1])
    return np.mean(found[:40]), np.mean(found[-40:])


@pytest.mark.parametrize(
    ("options", "learning_rate"), [(DISCRETE, 5e-4), (CONTINUOUS, 3e-3)], ids=["discrete", "continuous"]
)
def test_reward_rises_and_falls_where_the_sign_is_wrong(options, learning_rate):
    """Two of three thresholds are .1 off: 0 at best, -.133 by chance of all, -.2 at worst."""
    first, last = rewards(options, learning_rate)
    assert -0.15 < first < -0.09
    assert last > -0.02
    assert rewards(options, learning_rate, sign=-1)[1] < -0.19


@pytest.mark.parametrize("options", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_arrays_are_numpy_and_what_is_saved_goes_on_bit_for_bit(options):
    controller = Controller(**options, baseline=0.5)

    def gone_on(arrays, steps):
        actions = []
        for step in steps:
            actions.append(controller.propose(arrays, ALPHAS, step)[0])
            arrays = controller.update(arrays, ALPHAS, actions[-1], -1.0 - step)
        return arrays, actions

    half, _ = gone_on(controller.init(0), range(2))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(half))
    leaves, structure = jax.tree.flatten(half)
    read = jax.tree.unflatten(
        structure, [np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape) for x in leaves]
    )
    whole, expected = gone_on(half, range(2, 4))
    again, found = gone_on(read, range(2, 4))
    assert_trees_equal((again, found), (whole, expected))
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), whole, half)


@pytest.mark.parametrize(("options", "dtype"), [(DISCRETE, np.int32), (CONTINUOUS, np.float32)])
def test_proposal_is_a_function_of_its_seed_and_lies_between_the_bounds(options, dtype):
    controller = Controller(**options)
    arrays = controller.init(3)
    assert_trees_equal(arrays, Controller(**options).init(3))
    found = [controller.propose(arrays, ALPHAS, seed) for seed in (0, 0, *range(1, 20))]
    assert_trees_equal(found[0], found[1])
    actions, thresholds = (np.array(values) for values in zip(*found, strict=True))
    assert (actions.dtype, thresholds.dtype, thresholds.shape) == (dtype, np.float64, (21, 2))
    assert (thresholds >= 0.55).all()
    assert (thresholds <= 0.75).all()
    assert (thresholds.std(axis=0) > 0.005).all()


def test_device_that_is_the_default_changes_nothing():
    controller, actions = Controller(**DISCRETE, baseline=0.9), np.array([0, 2], np.int32)

    def all_of_it(placed=lambda arrays: arrays):
        arrays = placed(controller.init(0))
        return controller.propose(arrays, ALPHAS, 0), controller.update(arrays, ALPHAS, actions, -1.0)

    expected = all_of_it()
    other = jax.devices()[5]
    with jax.default_device(other):
        assert_trees_equal(all_of_it(), expected)
    # A checkpoint gives arrays of a device.
    assert_trees_equal(all_of_it(lambda arrays: jax.device_put(arrays, other)), expected)


def test_baseline_is_used_before_it_takes_the_reward_in():
    """Rewards -2, -4, -3 with decay .75: the baseline is 0, then -2, then .75 * -2 + .25 * -4 = -2.5, then -2.625."""
    controller, actions = Controller(**DISCRETE, baseline=0.75), np.array([0, 2], np.int32)
    plain = Controller(**DISCRETE)
    arrays = controller.init(0)
    assert (arrays["baseline"], arrays["begun"]) == (0, False)
    for reward, advantage, after in ((-2, -2, -2), (-4, -2, -2.5), (-3, -0.5, -2.625)):
        expected = plain.update({**arrays, "baseline": np.float32(0)}, ALPHAS, actions, advantage)
        arrays = controller.update(arrays, ALPHAS, actions, reward)
        assert_trees_close(arrays["optimizer"], expected["optimizer"])
        assert (arrays["baseline"], arrays["begun"]) == (pytest.approx(after), True)
        assert expected["baseline"] == 0


def test_one_threshold_is_a_fixed_rate_that_nothing_is_learned_of():
    controller = Controller(CHANNELS, thresholds=(0.6,))
    arrays = controller.init(0)
    actions, thresholds = controller.propose(arrays, ALPHAS, 0)
    np.testing.assert_array_equal(thresholds, [0.6, 0.6])
    found = controller.update(arrays, ALPHAS, actions, -1.0)
    assert_trees_equal(found["params"], arrays["params"])


def test_second_update_and_proposal_trace_nothing(monkeypatch):
    traces, call = [], ThresNet.__call__
    monkeypatch.setattr(ThresNet, "__call__", lambda *args: traces.append(1) or call(*args))

    def gone_on(arrays, step):
        controller = Controller(list(CHANNELS), learning_rate=0.0123)  # an equal one each time
        actions, _ = controller.propose(arrays, ALPHAS, step)
        return controller.update(arrays, ALPHAS, actions, -1.0)

    arrays = gone_on(Controller(CHANNELS, learning_rate=0.0123).init(0), 0)
    first = len(traces)
    assert first > 0
    gone_on(gone_on(arrays, 1), 2)
    assert len(traces) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, r"^channels: .*, one at least, got \(\)"),
        ({"channels": (0,)}, "^channels: expected a tuple of a whole number of at least 1"),
        ({"policy": "normal"}, "^policy: expected one of discrete, continuous, got 'normal'"),
        ({"thresholds": ()}, "^thresholds: "),
        ({"thresholds": (0.5, 1.1)}, "^thresholds: expected a tuple of numbers from 0 to 1"),
        ({"learning_rate": 0}, "^learning_rate: "),
        ({"baseline": 1.5}, "^baseline: expected a number from 0 to 1, or None"),
    ],
)
def test_options_are_checked_by_name(options, message):
    with pytest.raises(BadValue, match=message):
        Controller(**{**DISCRETE, **options})


def test_alphas_of_other_layers_and_rewards_that_are_no_numbers_are_told():
    controller = Controller(**DISCRETE)
    arrays = controller.init(0)
    with pytest.raises(BadValue, match=r"^alphas: expected arrays of the shapes \(\(4,\), \(6,\)\), got"):
        controller.propose(arrays, ALPHAS[::-1], 0)
    with pytest.raises(RunError, match="reward of a sampled subnet is nan"):
        controller.update(arrays, ALPHAS, np.array([0, 0], np.int32), float("nan"))


def test_jax_without_a_cpu_is_told_how_to_have_one(monkeypatch):
    def missing(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", missing)
    with pytest.raises(UserError, match="JAX_PLATFORMS=cuda,cpu"):
        Controller(**DISCRETE).init(0)
