"""Steps that learn structure parameters: mixtures of operators, the expected cost, and what moves."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.engines import batches
from helpers.nets import named
from helpers.tfnas import OPTIONS, searching, tiny_net, uneven
from helpers.trees import TOLERANCE, assert_trees_equal
from slimjax.algorithms import tfnas
from slimjax.algorithms.tfnas import COST_LOSSES
from slimjax.nn import losses, structure
from slimjax.nn.choices import Gate
from slimjax.nn.structure import Mixture
from slimjax.nn.widths import Widths
from slimjax.step import optimizers, streams

LOGITS = {"choices": {"a": jnp.log(jnp.array([0.2, 0.5, 0.3])), "depth": jnp.array([0.3, -1.2])}}
BOTH = Mixture(plain=("depth",), noisy=("a",))
TARGET, WEIGHT, TEMPERATURE = 0.4, 0.3, 5.0


def test_weights_are_softmaxes_of_noisy_operators_over_the_temperature_and_of_plain_depths():
    key = jax.random.key(1)
    found = BOTH.weights(LOGITS, key, 3.0)
    # Gumbel noise, for which the difference of two weights' logarithms is that of the noisy logits over 3.
    noise = 3 * np.log(found["a"]) - LOGITS["choices"]["a"]
    np.testing.assert_allclose(found["depth"], np.exp([0.3, -1.2]) / np.exp([0.3, -1.2]).sum(), rtol=1e-6)
    for temperature in (0.7, 20.0):
        other = BOTH.weights(LOGITS, key, temperature)["a"]
        again = temperature * np.log(other) - LOGITS["choices"]["a"]
        np.testing.assert_allclose(again - again[0], noise - noise[0], rtol=1e-3, atol=1e-4)
        assert float(other.sum()) == pytest.approx(1)
    assert np.abs(noise - noise[0]).max() > 0.1
    assert (BOTH.weights(LOGITS, jax.random.key(2), 3.0)["a"] != found["a"]).all()


def test_the_largest_weights_of_noisy_operators_have_their_probabilities():
    """The noise is Gumbel's, and of each choice its own."""
    mixture = Mixture(noisy=("a", "b"))
    logits = {"choices": LOGITS["choices"] | {"b": LOGITS["choices"]["a"]}}
    keys = jax.random.split(jax.random.key(0), 20_000)
    found = jax.jit(jax.vmap(lambda key: mixture.weights(logits, key, TEMPERATURE)))(keys)
    best = {name: np.argmax(rows, -1) for name, rows in found.items()}
    for options in best.values():
        np.testing.assert_allclose(np.bincount(options) / len(keys), [0.2, 0.5, 0.3], atol=0.015)
    assert abs(np.mean(best["a"] == best["b"]) - (0.04 + 0.25 + 0.09)) < 0.015


def test_every_option_has_the_same_probability_at_first():
    space = tiny_net().space
    for choice in space.choices:
        row = structure.even_choices(space)["choices"][choice.name]
        np.testing.assert_allclose(np.exp(row), 1 / len(choice), rtol=1e-6)


def doubled(tree):
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, tree)


@pytest.fixture(scope="module")
def learnt():
    """An architecture step in float64, whose update is minus the gradient: before and after it."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "architecture_adam", optax.sgd)
        net = named("tfnas", **OPTIONS, dtype=jnp.float64)
        options = {"budget": f"macs<={TARGET}", "cost_weight": WEIGHT, "temperature": TEMPERATURE}
        algorithm = tfnas(searching(net=net), arch_rate=1.0, warmup=0, search=1, **options)
        turn, state = algorithm.phases[-1].turns[-1], algorithm.init(0)
        louder = jax.tree.map(lambda x: 100 * x, state.params["head"])
        state = state.replace(structure=uneven(net.space), params={**state.params, "head": louder})
        state, batch = doubled(state), next(batches(1, 8))
        state = state.replace(step=jnp.int32(7))
        before, rows = jax.tree.map(np.asarray, state), algorithm.propose(state.algorithm, 2)
        after, metrics = turn.step(state, batch, rows)
        after, metrics = jax.tree.map(np.asarray, (after, metrics))
    return SimpleNamespace(
        net=net, before=before, after=after, metrics=metrics, batch=batch, turn=turn, rows=rows
    )


def noisy_weights(learnt, logits):
    """Of all choices, with the noise of the step."""
    names = [choice.name for choice in learnt.net.space.choices]
    mixture = Mixture(("stage1/depth",), tuple(name for name in names if "operator" in name))
    key = streams.key(learnt.before.key, learnt.before.step, streams.NOISE)
    return mixture.weights({"choices": logits}, key, TEMPERATURE)


def expected_cost(learnt, weights):
    """Over the target: the mean of the costs of all paths, by the product of their weights."""
    space, widths, total = learnt.net.space, learnt.rows[0][: len(learnt.net.space.groups)], 0.0
    for options in itertools.product(*(range(len(choice)) for choice in space.choices)):
        chance = np.prod(
            [np.asarray(weights[c.name])[o] for c, o in zip(space.choices, options, strict=True)]
        )
        total += chance * learnt.net.macs(space.canonical(np.array([*widths, *options], np.int32)))
    return total / (TARGET * learnt.net.macs(space.largest))


def test_an_architecture_step_moves_structure_parameters_only(learnt):
    before, after = learnt.before, learnt.after
    assert learnt.turn.split == "holdout"
    for field in ("params", "affine", "batch_stats", "opt_state", "algorithm"):
        assert_trees_equal(getattr(after, field), getattr(before, field))
    for name, row in after.structure["choices"].items():
        assert (row != before.structure["choices"][name]).all(), name
    assert "grad_norm" not in learnt.metrics


def test_penalty_is_the_relative_error_of_the_expected_cost(learnt):
    with jax.enable_x64(True):  # other bits, and so other noise, than in single precision
        weights = noisy_weights(learnt, learnt.before.structure["choices"])
    ratio = expected_cost(learnt, weights)
    assert abs(ratio - 1) > 0.05
    assert float(learnt.metrics["penalty"]) == pytest.approx(WEIGHT * abs(ratio - 1), rel=1e-5)


def test_gradient_is_that_of_cross_entropy_and_expected_cost_by_finite_differences(learnt):
    """With the same noise in both, in float64, of every structure parameter."""
    before, batch, net = learnt.before, learnt.batch, learnt.net
    groups = net.space.masked(learnt.rows[0]).groups
    with jax.enable_x64(True):
        images, labels = batch["image"].astype(np.float64) / 255, jax.nn.one_hot(batch["label"], 5)

        @jax.jit
        def cross_entropy(weights):
            gates = {name: Gate(len(row) - 1, weights=row) for name, row in weights.items()}
            variables = {"params": before.params, "affine": before.affine["shared"]}
            logits = net.apply(variables, images, Widths(groups, gates=gates), train=True)
            return losses.cross_entropy(logits, labels)

        def loss(name, position, change):
            logits = dict(before.structure["choices"])
            logits[name] = logits[name] + change * np.eye(len(logits[name]))[position]
            weights = noisy_weights(learnt, logits)
            return float(cross_entropy(weights)) + WEIGHT * abs(expected_cost(learnt, weights) - 1)

        for name, row in before.structure["choices"].items():
            places = range(len(row))
            want = [(loss(name, i, 1e-5) - loss(name, i, -1e-5)) / 2e-5 for i in places]
            found = row - learnt.after.structure["choices"][name]
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-7, err_msg=name)
            assert np.abs(want).max() > 1e-4, name


@pytest.mark.parametrize("name", COST_LOSSES)
def test_losses_of_the_expected_cost(name):
    """By the ratio to the target: TF-NAS's has its least where they are equal, the others below."""
    by_hand = {"absolute": [0.5, 0.0, 1.0], "linear": [0.5, 1.0, 2.0], "log": np.log([0.5, 1.0, 2.0])}
    found = [float(COST_LOSSES[name](jnp.float32(ratio))) for ratio in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(found, by_hand[name], **TOLERANCE["float32"])
