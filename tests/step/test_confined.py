"""Confined updates: what a step leaves alone, and that the rest is the step of the subnet by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.engines import batches, engine_of
from helpers.nets import inactive, subnet_of
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.nn import filters, slicing
from slimjax.step.composed import ComposedStep
from slimjax.step.slots import Slot

OPTIONS = {"lr": 0.5, "decay": 0.1, "momentum": 0.9}
SLOTS = (Slot("one"),)


def run(subnets, confined=True, penalty=None, knobs=None, **options):
    """The state before, the state after steps on these subnets, and the step."""
    engine = engine_of(**OPTIONS, **options)
    state = engine.init(0, SLOTS, None if knobs is None else {"penalty": knobs})
    before = jax.tree.map(np.asarray, state)
    step = ComposedStep(engine, SLOTS, penalty=penalty, confined=confined)
    for batch, subnet in zip(batches(len(subnets)), subnets, strict=True):
        state, _ = step(state, batch, subnet[None])
    return before, state, step


def weights(state):
    return {"params": state.params, "affine": state.affine["shared"]}


def outside(net, subnet, tree):
    """The entries of a tree of weights that the subnet does not use, in one list of arrays."""
    masks = inactive(net, subnet, tree)
    return jax.tree.map(lambda leaf, mask: np.asarray(leaf)[mask], tree, masks)


def momentum(state):
    trace = state.opt_state[2].trace
    return {"params": trace["params"], "affine": trace["affine"]["shared"]}


@pytest.mark.parametrize("policy", ["masked", "sliced"])
def test_nothing_outside_the_subnet_moves(policy):
    """Neither weights nor momentum nor the moving average, by no bit; unconfined, decay moves them."""
    net = engine_of(**OPTIONS).net
    subnet = subnet_of(net)
    before, state, _ = run([subnet, subnet], policy=policy, average_decay=0.5)
    assert_trees_equal(outside(net, subnet, weights(state)), outside(net, subnet, weights(before)))
    assert_trees_equal(outside(net, subnet, momentum(state)), outside(net, subnet, momentum(before)))
    averages = [
        {"params": s.average["params"], "affine": s.average["affine"]["shared"]} for s in (state, before)
    ]
    assert_trees_equal(*(outside(net, subnet, average) for average in averages))
    free = run([subnet, subnet], confined=False, policy=policy, average_decay=0.5)[1]
    kernel = lambda state: outside(net, subnet, weights(state))["params"]["stage2_block1"]["conv1"]["kernel"]  # noqa: E731
    assert np.abs(kernel(free) - kernel(before)).max() > 0.01


def test_momentum_of_another_subnet_moves_nothing_outside():
    """The largest subnet's momentum is everywhere when the small one is trained."""
    engine = engine_of(**OPTIONS)
    net, small = engine.net, engine.net.space.smallest
    once = run([net.space.largest])[1]
    twice = run([net.space.largest, small])[1]
    assert_trees_equal(outside(net, small, weights(twice)), outside(net, small, weights(once)))
    assert_trees_equal(outside(net, small, momentum(twice)), outside(net, small, momentum(once)))
    free = run([net.space.largest, small], confined=False)[1]
    with pytest.raises(AssertionError):
        assert_trees_equal(outside(net, small, weights(free)), outside(net, small, weights(once)))


def alone(engine, variables, subnet, count):
    """Plain training of the network that is cut out, with the engine's optimiser and one jitted step."""
    net, widths = engine.net, engine.net.space.sliced(subnet)

    def loss(trained, batch):
        logits = net.model.apply(trained, engine.prepare_test(batch["image"]), widths, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    kept = engine.optimizer.init(variables)
    for batch in batches(count):
        grads = jax.jit(jax.grad(loss))(variables, batch)
        updates, kept = engine.optimizer.update(grads, kept, variables)
        variables = optax.apply_updates(variables, updates)
    return variables


def test_inside_is_the_step_of_the_network_cut_out():
    engine = engine_of(**OPTIONS)
    subnet = subnet_of(engine.net)
    before, state, _ = run([subnet] * 3)
    want = alone(engine, engine.net.cut(weights(before), subnet), subnet, 3)
    assert_trees_close(engine.net.cut(weights(state), subnet), want, "training")


def test_another_subnet_compiles_nothing_new():
    space = engine_of(**OPTIONS).net.space
    _, state, step = run([space.smallest])
    compiled = step.counts().compiled
    step(state, next(batches(1)), space.uniform(0.5)[None])
    assert step.counts().compiled == compiled == 3  # prepare, one masked gradient, update


def test_devices_confine_alike():
    subnet = subnet_of(engine_of(**OPTIONS).net)
    one, eight = (run([subnet], devices=devices)[1] for devices in (1, 8))
    assert_trees_close(weights(eight), weights(one))


def test_several_slots_are_refused():
    with pytest.raises(ValueError, match=r"one slot, got 2: \['a', 'b'\]"):
        ComposedStep(engine_of(), (Slot("a"), Slot("b")), confined=True)


@pytest.mark.parametrize("clip", [1.0, np.inf])
def test_lasso_within_a_subnet_is_that_of_the_network_cut_out(clip):
    """Value and gradient; the mean norm is over the subnet's channels, and the gradient outside is exactly 0."""
    net = engine_of().net
    subnet = subnet_of(net)
    params = weights(engine_of().init(0, SLOTS))["params"]
    lasso = filters.lasso_penalty(net.records, net.space)
    masked = jax.jit(
        jax.value_and_grad(
            lambda p, active: lasso({"params": p}, {"strength": 0.5, "clip": clip, "active": active})
        )
    )
    value, gradient = masked(params, subnet)
    cut = net.cut({"params": params}, subnet)["params"]
    want, slope = jax.value_and_grad(written_out(net, clip))(cut)
    assert float(value) == pytest.approx(0.5 * float(want), rel=1e-5)
    assert_trees_close(
        net.cut({"params": gradient}, subnet)["params"], jax.tree.map(lambda g: 0.5 * g, slope)
    )
    empty = outside(net, subnet, {"params": gradient})
    assert max(np.abs(leaf).max(initial=0) for leaf in jax.tree.leaves(empty)) == 0


def written_out(net, clip):
    """sum over groups and channels of min(norm, clip * mean norm), of resnet8's convolutions by hand."""
    into = {"stage1": [("stem",), ("stage1_block1", "conv2")], "stage1/block1": [("stage1_block1", "conv1")]}
    for stage in ("stage2", "stage3"):
        into |= {stage: [(f"{stage}_block1", "conv2")], f"{stage}/block1": [(f"{stage}_block1", "conv1")]}
    assert set(into) == set(net.space.index)

    def kernel(params, path):
        for name in path:
            params = params[name]
        return params["kernel"]

    def total(params):
        found = 0.0
        for paths in into.values():
            norm = jnp.sqrt(sum((kernel(params, path) ** 2).sum((0, 1, 2)) for path in paths))
            limit = jax.lax.stop_gradient(clip * norm.mean())
            found += jnp.where(norm < limit, norm, limit).sum()
        return found

    return total


def test_penalty_within_the_subnet_leaves_what_is_outside():
    """A confined step with the subnet's lasso: outside nothing moves, inside the kernels shrink by its gradient."""
    net = engine_of().net
    subnet, lasso = subnet_of(net), filters.lasso_penalty(net.records, net.space)
    knobs = {"strength": np.float32(0.5), "clip": np.float32(np.inf), "active": subnet}
    before, state, _ = run([subnet], penalty=lasso, knobs=knobs)
    plain = run([subnet])[1]
    assert_trees_equal(outside(net, subnet, weights(state)), outside(net, subnet, weights(before)))
    gradient = jax.grad(lasso)({"params": before.params}, knobs)["params"]
    # Nesterov's momentum: the first step is (1 + 0.9) times the gradient, at a rate of 0.5.
    want = jax.tree.map(lambda x, g: x - 0.5 * 1.9 * g, plain.params, gradient)
    assert_trees_close(state.params, want)


def test_merging_takes_nan_from_neither_side():
    """Of a kernel [k, k, inputs, outputs] the block of the first channels; named sets of gammas alike."""
    net = engine_of().net
    subnet, state = subnet_of(net), engine_of(average_decay=0.9).init(0, SLOTS)
    poisoned = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan) if x.dtype == jnp.float32 else x, state)
    merge = jax.jit(lambda one, other, active: slicing.merged(net.records, net.space, one, other, active))
    one, other = merge(state, poisoned, subnet), merge(poisoned, state, subnet)
    for part in (weights, momentum):
        masks = inactive(net, subnet, part(state))
        jax.tree.map(lambda x, out: np.testing.assert_array_equal(np.isnan(x), out), part(one), masks)
        jax.tree.map(lambda x, out: np.testing.assert_array_equal(np.isnan(x), ~out), part(other), masks)
