"""Steps that train structure parameters: what moves, what stays, and by how much."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.engines import batches, engine_of
from helpers.nets import subnet_of
from helpers.scorers import related_subnets
from helpers.trees import TOLERANCE, assert_trees_close, assert_trees_equal
from slimjax import sharding
from slimjax.nn import losses, structure
from slimjax.nn.layers import BatchNorm
from slimjax.step.composed import ComposedStep
from slimjax.step.scoring import Scorer
from slimjax.step.slots import Slot
from slimjax.workdir.checkpoint import Checkpointer

OPTIONS = {"lr": 0.5, "decay": 0.1, "momentum": 0.9}
SLOTS = (Slot("one"),)
RATE = 0.3


@functools.cache
def lively_net():
    """Norms undo what scales a filter, but for their epsilon: here it is large, so that alphas have a gradient."""
    net = engine_of().net
    return dataclasses.replace(net, model=net.model.clone(norm=functools.partial(BatchNorm, epsilon=0.1)))


@functools.cache
def engine(**options):
    """With momentum and decay of the weights, and momentum of the alphas at a rate of their own."""
    return dataclasses.replace(
        engine_of(**OPTIONS, **options),
        net=lively_net(),
        structure_optimizer=optax.sgd(RATE, momentum=0.9),
    )


def alphas_of(net):
    return structure.init(net.records, jax.random.key(3))


def fresh(engine, slots=SLOTS, penalty=None):
    """A state whose classifier is not near zero, so that gradients are not either."""
    arrays = None if penalty is None else {"penalty": penalty}
    state = engine.init(0, slots, arrays, structure=alphas_of(engine.net))
    head = jax.tree.map(lambda x: 100 * x, state.params["head"])
    return dataclasses.replace(state, params={**state.params, "head": head})


def run(subnets, trains, slots=SLOTS, penalty=None, knobs=None, confined=False, **options):
    """The state before, the state after, the last metrics and the step."""
    one = engine(**options)
    state = fresh(one, slots, knobs)
    before = jax.tree.map(np.asarray, state)
    step = ComposedStep(one, slots, penalty=penalty, confined=confined, trains=trains)
    for batch, subnet in zip(batches(len(subnets)), subnets, strict=True):
        state, metrics = step(state, batch, subnet[None])
    return before, state, metrics, step


def weights(state):
    return state.params, state.affine, state.opt_state


def alphas(state):
    """What belongs to channels: the alphas and what their optimiser keeps."""
    return state.structure["alphas"], state.structure_opt[0].trace["structure"]["alphas"]


def gradient(engine, state, subnet, batch):
    """Of the cross-entropy of the subnet, by params, affine and structure."""

    @jax.jit
    def loss(trained):
        variables = {**trained, "affine": trained["affine"]["shared"]}
        logits = engine.net.apply(
            variables, engine.prepare_test(batch["image"]), engine.net.space.sliced(subnet), train=True
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    return jax.grad(loss)(state.trainable)


def moved(after, before):
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), after, before)


SUBNET = np.maximum(subnet_of(engine().net), 2)  # the share of a single channel is 1, whatever its alpha
LARGEST = engine().net.space.largest


@pytest.mark.parametrize("policy", ["masked", "sliced"])
def test_a_step_of_alphas_moves_only_them_by_their_gradient(policy):
    """Weights, gammas, betas and what their optimiser keeps stay to the bit; so do statistics that no slot renews."""
    before, state, metrics, step = run([SUBNET], ["structure"], policy=policy)
    assert_trees_equal(weights(state), weights(before))
    assert_trees_equal(state.batch_stats, before.batch_stats)
    want = gradient(step.engine, before, SUBNET, next(batches(1)))["structure"]
    assert min(np.abs(g).max() for g in jax.tree.leaves(want)) > 3e-3, "there is something to learn"
    assert_trees_close(moved(state.structure, before.structure), jax.tree.map(lambda g: -RATE * g, want))
    assert float(metrics["structure_grad_norm"]) == pytest.approx(float(optax.tree.norm(want)), rel=1e-3)
    assert "grad_norm" not in metrics
    assert int(state.step) == 1


def test_a_step_of_weights_leaves_the_alphas():
    """And is the plain step of the network with scaled filters."""
    before, state, metrics, step = run([SUBNET], ["weights"])
    assert_trees_equal(alphas(state), alphas(before))
    grads = gradient(step.engine, before, SUBNET, next(batches(1)))
    grads = {name: grads[name] for name in ("params", "affine")}
    trained = {"params": before.params, "affine": before.affine}
    updates, _ = step.engine.optimizer.update(grads, before.opt_state, trained)
    assert_trees_close(
        {"params": state.params, "affine": state.affine}, optax.apply_updates(trained, updates)
    )
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-3)
    assert "structure_grad_norm" not in metrics


def test_one_step_can_move_both():
    """Each as if the other stood still: both gradients are taken at the same point."""
    both = run([SUBNET], ["structure", "weights"])[1]
    assert_trees_close(alphas(both), alphas(run([SUBNET], ["structure"])[1]))
    assert_trees_close(weights(both), weights(run([SUBNET], ["weights"])[1]))


def test_gradients_of_slots_and_micro_batches_add_up():
    """Two equal slots: twice the gradient; in two micro-batches with statistics of their own it differs."""
    subnet = tuple(SUBNET.tolist())
    slots = (Slot("a", subnet), Slot("b", subnet))
    one_before, one, _, _ = run([SUBNET], ["structure"])
    before, two, _, _ = run([SUBNET], ["structure"], slots=slots)
    twice = jax.tree.map(lambda x: 2 * x, moved(one.structure, one_before.structure))
    assert_trees_close(moved(two.structure, before.structure), twice)
    halves_before, halves, _, _ = run([SUBNET], ["structure"], micro_batches=2)
    want = [
        gradient(
            engine(), halves_before, SUBNET, {name: rows[i::2] for name, rows in next(batches(1)).items()}
        )
        for i in range(2)
    ]
    mean = jax.tree.map(lambda a, b: -RATE * (a + b) / 2, *(g["structure"] for g in want))
    assert_trees_close(moved(halves.structure, halves_before.structure), mean)


def all_squares(trainable, knobs):
    return knobs["strength"] * sum(
        (leaf**2).sum() / 2 for leaf in jax.tree.leaves((trainable["params"], trainable["structure"]))
    )


def test_penalty_of_alphas_moves_what_is_trained_only():
    """Its gradient is the alphas themselves; the parameters, which it sees as well, stay."""
    knobs = {"strength": np.float32(2)}
    before, state, _, _ = run([SUBNET], ["structure"], penalty=all_squares, knobs=knobs)
    plain = run([SUBNET], ["structure"])[1]
    want = jax.tree.map(lambda x, start: x - RATE * 2 * start, plain.structure, before.structure)
    assert_trees_close(state.structure, want)
    assert_trees_equal(weights(state), weights(before))


def beyond(subnet, tree):
    """Of a tree by group, the channels that the subnet does not have."""
    counts = engine().net.space.to_channels(subnet)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: np.asarray(leaf)[counts[path[-1].key] :], tree)


def within(subnet, tree):
    counts = engine().net.space.to_channels(subnet)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: np.asarray(leaf)[: counts[path[-1].key]], tree)


def test_confined_steps_leave_alphas_of_other_channels():
    """Although the whole network's momentum is there, and a penalty pulls at all of them; unconfined, they move."""
    first, second = batches(2)
    both, knobs = ["weights", "structure"], {"strength": np.float32(0.1)}

    def alphas_after(confined):
        state = ComposedStep(engine(), SLOTS, trains=both)(
            fresh(engine(), penalty=knobs), first, LARGEST[None]
        )[0]
        start = jax.tree.map(np.asarray, alphas(state))
        step = ComposedStep(engine(), SLOTS, penalty=all_squares, confined=confined, trains=both)
        return start, alphas(step(state, second, SUBNET[None])[0])

    before, after = alphas_after(confined=True)
    assert_trees_equal(beyond(SUBNET, after), beyond(SUBNET, before))
    free = alphas_after(confined=False)[1]
    strayed = [leaf for leaf in jax.tree.leaves(beyond(SUBNET, moved(free, before))) if leaf.size]
    assert min(np.abs(leaf).min() for leaf in strayed) > 1e-4
    assert all(change[0] != 0 for change in jax.tree.leaves(moved(after, before)))
    assert_trees_close(within(SUBNET, after), within(SUBNET, free))


def test_another_subnet_compiles_nothing_new():
    _, state, _, step = run([SUBNET], ["weights", "structure"], confined=True)
    compiled = step.counts().compiled
    step(state, next(batches(1)), engine().net.space.uniform(0.5)[None])
    assert step.counts().compiled == compiled == 3  # prepare, one masked gradient, update


def test_one_device_and_eight_take_the_same_step():
    one, eight = (run([SUBNET], ["weights", "structure"], devices=devices)[1] for devices in (1, 8))
    for got, want in zip(*(jax.tree.leaves(s.trainable) for s in (eight, one)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)
    assert_trees_close(alphas(eight), alphas(one))


def test_moving_average_takes_in_what_moves():
    """At a step of 0 its decay is 1 / 10. What a step does not train, it does not average."""
    before, state, _, _ = run([SUBNET], ["structure"], average_decay=0.9)
    want = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.structure, state.structure)
    assert_trees_close(state.average["structure"], want)
    assert_trees_equal(state.average["params"], before.average["params"])
    assert_trees_equal(state.variables()["structure"], state.average["structure"])


def test_a_step_after_reordering_is_reordering_after_a_step():
    """Alphas, what their optimiser keeps of them, and their average."""
    net, (first, second) = engine().net, batches(2)
    step = ComposedStep(engine(average_decay=0.9), SLOTS, trains=["weights", "structure"])
    importance = alphas_of(net)["alphas"]
    once = lambda: step(fresh(step.engine), first, LARGEST[None])[0]  # noqa: E731  # steps donate their state
    one = net.reorder(step(once(), second, LARGEST[None])[0], importance)
    other = step(net.reorder(once(), importance), second, LARGEST[None])[0]
    assert_trees_close((alphas(one), one.average), (alphas(other), other.average), "training")
    with pytest.raises(AssertionError):
        assert_trees_close(alphas(one)[1], alphas(step(once(), second, LARGEST[None])[0])[1], "training")


def decided(engine):
    """A state in which the alphas decide: losses of different subnets differ by more than rounding."""
    state = fresh(engine, (Slot("max", stats="max"),))
    return dataclasses.replace(state, structure=jax.tree.map(lambda x: 4 * x, state.structure))


def of_the_cut(engine, state, subnet, batch):
    """The loss of the subnet's own network, in training mode."""
    dense = engine.net.cut(state.variables(), subnet)
    images = engine.prepare_test(batch["image"])
    logits = engine.net.model.apply(dense, images, engine.net.space.sliced(subnet), train=True)
    return float(losses.cross_entropy(logits, jax.nn.one_hot(batch["label"], 5)))


@pytest.mark.parametrize("boundaries", [0, 2])
def test_scores_are_those_of_the_networks_cut_out(boundaries):
    """Also where beginnings are computed once for several subnets: softmaxes are over each subnet's own channels."""
    one = dataclasses.replace(engine(), policy="auto", max_programs=5 + boundaries)
    state, batch = decided(one), next(batches(1))
    subnets = related_subnets(one, 5)
    scorer = Scorer(one, related_subnets(one, 60, seed=1))
    assert len(scorer.layout.boundaries) == boundaries
    found = scorer(state, subnets, batch)["loss"]
    want = [of_the_cut(one, state, subnet, batch) for subnet in subnets]
    np.testing.assert_allclose(found, want, **TOLERANCE["float32"])
    flat = dataclasses.replace(state, structure=jax.tree.map(jnp.zeros_like, state.structure))
    assert np.abs(scorer(flat, subnets, batch)["loss"] - found).max() > 0.01


def test_tests_and_calibration_see_the_alphas():
    one = engine()
    state, batch = decided(one), next(batches(1))
    stats = one.collect(state, "shared")(state.batch_stats["max"], SUBNET, batch, 0)
    found = one.test(state, "shared", stats, SUBNET, {**batch, "weight": np.ones(16, np.float32)})
    dense = one.net.cut({**state.variables(), "batch_stats": stats}, SUBNET)
    images = one.prepare_test(batch["image"])
    logits = one.net.model.apply(dense, images, one.net.space.sliced(SUBNET), train=False)
    want = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).sum()
    assert float(found["loss"]) == pytest.approx(float(want), rel=1e-4)


def test_checkpoints_hold_alphas_and_what_their_optimiser_keeps(tmp_path):
    """Some of the groups' names have slashes, and begin with another group's name."""
    _, state, _, _ = run([SUBNET], ["structure"])
    assert {"stage1", "stage1/block1"} <= set(state.structure["alphas"])
    tree = {"state": state}
    with Checkpointer(tmp_path) as saver:
        saver.save(1, tree)
        found = saver.restore(sharding.abstract(tree, sharding.replicated(sharding.make_mesh(1))))
    assert_trees_equal(found.tree, tree)


@pytest.mark.parametrize("trains", [[], ["structure"], ["alphas"], ["weights", "structure"]])
def test_what_has_no_optimiser_is_refused(trains):
    with pytest.raises(
        ValueError, match=r"trains: expected some of what has an optimiser \(\['weights'\]\), got"
    ):
        ComposedStep(engine_of(), SLOTS, trains=trains)


def test_a_state_without_structure_is_refused():
    step = ComposedStep(engine(), SLOTS, trains=["structure"])
    with pytest.raises(ValueError, match="no structure parameters in this state"):
        step(engine().init(0, SLOTS), next(batches(1)), SUBNET[None])
