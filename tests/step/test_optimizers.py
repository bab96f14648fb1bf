"""Schedules and SGD against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from helpers.nets import named, variables_of
from slimjax.step import optimizers


def rates(name, **options):
    schedule = optimizers.schedule(name, 0.5, steps=100, steps_per_epoch=10, **options)
    return [float(schedule(step)) for step in range(101)]


def test_linear_falls_every_update_to_zero():
    np.testing.assert_allclose(rates("linear"), 0.5 * (1 - np.arange(101) / 100), atol=1e-7)


def test_exponential_falls_once_an_epoch():
    np.testing.assert_allclose(rates("exponential"), 0.5 * 0.98 ** (np.arange(101) // 10), rtol=1e-6)


def test_multistep_falls_at_its_milestones():
    want = 0.5 * 0.1 ** np.searchsorted([30, 60], np.arange(101), side="right")
    np.testing.assert_allclose(rates("multistep", factor=0.1, milestones=(3, 6)), want, rtol=1e-6)


def test_epochs_that_are_no_whole_number_of_updates_do_not_accumulate():
    """10 images in batches of 4 are 2.5 updates: epochs end after 2.5, 5, 7.5 and 10 of them."""
    schedule = optimizers.schedule("exponential", 1.0, steps=10, steps_per_epoch=2.5, factor=0.5)
    rates = [float(schedule(step)) for step in range(10)]
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]


def test_imagenet_milestones_are_counted_in_images():
    """1,281,167 images in batches of 256 are 5,004.56 updates: 30, 60 and 90 epochs end at these."""
    schedule = optimizers.schedule(
        "multistep", 1.0, steps=500_456, steps_per_epoch=1_281_167 / 256, factor=0.1, milestones=(30, 60, 90)
    )
    rates = [float(schedule(step)) for at in (150_137, 300_274, 450_411) for step in (at - 1, at)]
    np.testing.assert_allclose(rates, [1, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_last_update_of_480_epochs_has_had_479_decays():
    per_epoch = 1_281_167 / 160
    schedule = optimizers.schedule("exponential", 1.0, steps=3_843_501, steps_per_epoch=per_epoch)
    np.testing.assert_allclose(float(schedule(3_843_500)), 0.98**479, rtol=1e-5)


def test_exponential_decay_ends_at_a_constant_share():
    """BigNAS: 1, .25, .0625 after 2 and 4 epochs of one update; then .05 of the base for ever."""
    schedule = optimizers.schedule(
        "exponential",
        2.0,
        steps=8,
        steps_per_epoch=1,
        factor=0.25,
        decay_epochs=2.0,
        final_fraction=0.05,
    )
    np.testing.assert_allclose(
        [float(schedule(t)) for t in range(8)], [2, 2, 0.5, 0.5, 0.125, 0.125, 0.1, 0.1]
    )


def test_cosine_is_half_way_down_in_the_middle():
    assert rates("cosine")[50] == pytest.approx(0.25)


def test_warmup_rises_linearly_before_the_decay_starts():
    values = rates("linear", warmup_steps=20)
    np.testing.assert_allclose(values[:20], 0.025 * np.arange(20), atol=1e-7)
    assert values[20] == 0.5
    assert values[60] == pytest.approx(0.25)


def test_weight_decay_spares_depthwise_norms_and_biases():
    variables = variables_of(named("us_mobilenet_v2", small_images=True))
    trainable = {"params": variables["params"], "affine": {"shared": variables["affine"]}}
    flat = traverse_util.flatten_dict(optimizers.decayed(trainable))
    kernels = {path for path, decayed in flat.items() if decayed}
    shapes = {path: x.shape for path, x in traverse_util.flatten_dict(trainable).items()}
    # The papers' rule by shape: 4-d with more than one input channel, or 2-d.
    by_shape = {p for p, s in shapes.items() if len(s) == 2 or (len(s) == 4 and s[2] != 1)}
    assert kernels == by_shape
    assert len(kernels) < len(flat)


def test_depthwise_kernels_decay_where_joslims_do():
    kernels = {
        "conv": {"kernel": 2.0},
        "depth": {"depthwise_kernel": 2.0},
        "norm": {"scale": 2.0, "bias": 2.0},
    }
    options = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.25}
    for decays, left in ((False, 2.0), (True, 1.5)):
        optimizer = optimizers.sgd(lambda step: 1.0, decay_depthwise=decays, **options)
        still = jax.tree.map(jnp.zeros_like, kernels)
        updates, _ = optimizer.update(still, optimizer.init(kernels), kernels)
        moved = jax.tree.map(lambda w, u: float(w + u), kernels, updates)
        assert moved["conv"]["kernel"] == 1.5
        assert moved["depth"]["depthwise_kernel"] == left
        assert moved["norm"] == {"scale": 2.0, "bias": 2.0}


def test_everything_decays_where_tfnas_does():
    weights = {name: jnp.array([2.0]) for name in ("kernel", "depthwise_kernel", "scale", "bias")}
    still = jax.tree.map(jnp.zeros_like, weights)
    options = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.25}
    for everything, decaying in ((False, {"kernel"}), (True, set(weights))):
        optimizer = optimizers.sgd(lambda step: 1.0, decay_all=everything, **options)
        updates, _ = optimizer.update(still, optimizer.init(weights), weights)
        assert {name for name, update in updates.items() if update[0] == -0.5} == decaying
        assert {name for name, update in updates.items() if update[0] == 0} == set(weights) - decaying


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_pytorchs_recurrence(nesterov):
    """buf = m buf + (g + wd w); w -= lr (g + wd w + m buf) with Nesterov, lr buf without."""
    optimizer = optimizers.sgd(lambda step: 0.1, nesterov=nesterov, weight_decay=0.01)
    weights = {"kernel": jnp.array([1.0, -2.0])}
    state, buffer, want = optimizer.init(weights), np.zeros(2), np.array([1.0, -2.0])
    for gradient in ([0.3, 0.1], [-0.2, 0.5], [0.7, 0.0]):
        updates, state = optimizer.update({"kernel": jnp.array(gradient)}, state, weights)
        weights = jax.tree.map(jnp.add, weights, updates)
        decayed = np.array(gradient) + 0.01 * want
        buffer = 0.9 * buffer + decayed
        want = want - 0.1 * (decayed + 0.9 * buffer if nesterov else buffer)
    np.testing.assert_allclose(weights["kernel"], want, rtol=1e-6)


def test_clipping_bounds_the_global_norm():
    optimizer = optimizers.sgd(
        lambda step: 1.0, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=1.0
    )
    weights = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    updates, _ = optimizer.update(jax.tree.map(lambda x: x + 10, weights), optimizer.init(weights), weights)
    norm = np.sqrt(sum((np.asarray(u) ** 2).sum() for u in jax.tree.leaves(updates)))
    assert norm == pytest.approx(1.0, rel=1e-5)


def test_architectures_adam_clips_decays_and_normalises():
    """Written out: gradients above and below a norm of 5 together, decay after clipping, log-softmax of the result."""
    rows = {"a": np.log([0.2, 0.8]), "b": np.log([0.5, 0.25, 0.25])}
    optimizer = optimizers.architecture_adam(0.1, weight_decay=0.3)
    values = {name: jnp.asarray(row, jnp.float32) for name, row in rows.items()}
    state = optimizer.init(values)
    first, second = ({name: np.zeros(len(row)) for name, row in rows.items()} for _ in range(2))
    steps = (
        {"a": np.array([6.0, -8.0]), "b": np.array([1.0, 0.0, 3.0])},
        {"a": np.array([0.1, 0.2]), "b": np.array([-0.3, 0.1, 0.0])},
    )
    for number, gradients in enumerate(steps, 1):
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            g = gradient * min(1, 5 / norm) + 0.3 * rows[name]
            first[name] = 0.5 * first[name] + 0.5 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            mean, square = first[name] / (1 - 0.5**number), second[name] / (1 - 0.999**number)
            rows[name] = rows[name] - 0.1 * mean / (np.sqrt(square) + 1e-8)
            rows[name] -= np.log(np.exp(rows[name]).sum())
        given = {name: jnp.asarray(g, jnp.float32) for name, g in gradients.items()}
        moved, state = optimizer.update(given, state, values)
        values = jax.tree.map(jnp.add, values, moved)
        for name, row in rows.items():
            np.testing.assert_allclose(values[name], row, rtol=1e-5)


def updates(count):
    linear = lambda steps: optimizers.schedule("linear", 0.5, steps=steps, steps_per_epoch=1)  # noqa: E731
    return optimizers.Updates(count, linear, optimizers.sgd)


def test_parts_share_a_run_in_proportion_to_their_lengths():
    assert updates(280).shared_out([100, 20, 20, 20, 20, 100]) == [0, 100, 120, 140, 160, 180]
    assert updates(10).shared_out([1, 1, 1]) == [0, 3, 7]
    assert updates(2).shared_out([5, 1, 1, 5]) == [0, 1, 1, 1]  # the middle ones have no update


def test_every_part_has_a_whole_schedule_times_its_scale():
    """Linear from .5 to 0: over 4 updates, over none, and over 6 at a tenth."""
    rate = updates(10).divided([0, 4, 4], [1.0, 7.0, 0.1])
    want = [*(0.5 * (1 - np.arange(4) / 4)), *(0.05 * (1 - np.arange(6) / 6))]
    np.testing.assert_allclose([float(rate(step)) for step in range(10)], want, rtol=1e-6)
