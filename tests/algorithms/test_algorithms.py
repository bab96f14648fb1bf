"""Conformance of every algorithm, and the simpler things that they reduce to."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.engines import batches, engine_of, in_run, trained
from helpers.tfnas import tiny_net
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax import sharding
from slimjax.algorithms import bignas, joslim, jst, snet, tfnas, usnet, wpc
from slimjax.errors import UserError
from slimjax.nn.layers import merge_variables
from slimjax.step import gradient
from slimjax.step.composed import ComposedStep
from slimjax.step.forms import Form
from slimjax.step.slots import Slot
from slimjax.step.state import place
from slimjax.workdir.checkpoint import Checkpointer

ALGORITHMS = {
    "bignas": lambda engine: bignas(engine),
    "joslim": lambda engine: joslim(engine, steps_per_round=2),
    "usnet": lambda engine: usnet(engine),
    "snet": lambda engine: snet(engine, widths=(0.25, 0.5, 1.0)),
    "jst": lambda engine: jst(
        in_run(engine, 60), num_subnets=3, coarse=30, weights=5, alphas=2, fine_tuning=9
    ),
    "wpc": lambda engine: wpc(in_run(engine, 70), dense=30, lasso=5, fused=25),
    # Twenty updates of warm-up; then two epochs of search.
    "tfnas": lambda engine: tfnas(
        dataclasses.replace(in_run(engine, 80), net=tiny_net()), budget="macs<=0.6", warmup=1, search=2
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_second_proposal_does_not_retrace(name, monkeypatch):
    """Images are prepared by one program, and gradients by no more than one for each slot."""
    chex.clear_trace_counter()
    engine = engine_of()
    prepare = chex.assert_max_traces(engine.prepare_train, n=1)
    algorithm = ALGORITHMS[name](dataclasses.replace(engine, prepare_train=prepare))
    slot_gradient = chex.assert_max_traces(gradient._on_device, n=len(algorithm.at(0).step.slots))
    monkeypatch.setattr(gradient, "_on_device", slot_gradient)
    trained(algorithm, steps=3)


@functools.cache
def conforming(name):
    """The algorithm with an engine: made, and compiled, once for several tests."""
    return ALGORITHMS[name](engine_of())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_step_changes_no_type_of_the_state(name):
    algorithm = conforming(name)
    chex.assert_trees_all_equal_shapes_and_dtypes(trained(algorithm, steps=1), algorithm.init(0))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_proposals_are_legal_subnets_and_a_function_of_the_step(name):
    algorithm = conforming(name)
    space = algorithm.at(0).step.engine.net.space
    state = algorithm.init(0)
    for step in range(50):
        state = algorithm.revise(state, step, lambda subnets: 1 / subnets.sum(-1))
        rows = algorithm.propose(state.algorithm, step)
        assert len(rows) == sum(slot.subnet is None for slot in algorithm.turn(step).step.slots)
        np.testing.assert_array_equal(algorithm.propose(state.algorithm, step), rows)
        for row in rows:
            space.check(row)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_checkpoint_round_trip_is_bit_identical(name, tmp_path):
    algorithm = conforming(name)
    mesh = sharding.make_mesh(8)
    state = place(mesh, trained(algorithm, steps=1))
    abstract = sharding.abstract(state, sharding.replicated(mesh))
    with Checkpointer(tmp_path) as saver:
        saver.save(1, {"state": state})
        saver.wait()
        assert_trees_equal(saver.restore({"state": abstract}).tree["state"], state)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_choose_names_subnets_that_the_state_can_run(name):
    algorithm = conforming(name)
    space = algorithm.at(0).step.engine.net.space
    state = algorithm.init(0)
    for choice in algorithm.choose(state, None).values():
        space.check(choice.subnet)
        assert choice.affine in state.affine
        assert choice.stats is None or choice.stats in state.batch_stats


def test_usnet_draws_one_continuous_width_for_the_whole_network():
    engine = engine_of()
    algorithm, space = usnet(engine), engine.net.space
    draws = np.concatenate([algorithm.propose({}, step) for step in range(400)])
    uniform = {tuple(space.uniform(w)) for w in np.linspace(0.25, 0.9999, 2000)}
    assert {tuple(row) for row in draws} == uniform, "every uniform subnet occurs, and nothing else"


def test_usnet_covers_a_range_that_ends_above_one():
    engine = engine_of()
    engine = dataclasses.replace(engine, net=dataclasses.replace(engine.net, min_width=0.5, max_width=2.0))
    algorithm, space = usnet(engine), engine.net.space
    draws = np.concatenate([algorithm.propose({}, step) for step in range(400)])
    assert {tuple(row) for row in draws} == {tuple(space.uniform(w)) for w in np.linspace(0.5, 1.9999, 2000)}
    names = list(algorithm.choose(algorithm.init(0), None))
    assert (names[0], names[-1]) == ("w0.50", "w2.00")


def test_bignas_draws_every_group_alone():
    engine = engine_of()
    algorithm = bignas(engine)
    draws = np.concatenate([algorithm.propose({}, step) for step in range(400)])
    inner = [engine.net.space.index[f"stage{s}/block1"] for s in (1, 2, 3)]
    for i in inner:
        assert set(draws[:, i]) == set(range(engine.net.space.smallest[i], engine.net.space.largest[i]))
    correlation = np.corrcoef(draws[:, inner].T) - np.eye(3)
    assert np.abs(correlation).max() < 0.2


def test_one_subnet_is_a_plain_step():
    """Against a step written out with Flax and Optax, for US-Net with n = 1 and S-Net with one switch."""
    engine = engine_of()
    state = usnet(engine, num_subnets=1).init(0)
    variables = merge_variables(state.params, state.affine["shared"])
    weights = {"params": variables["params"], "affine": variables["affine"]}
    optimizer_state = engine.optimizer.init(weights)
    for batch in batches(3):

        def loss(weights, batch=batch):
            logits = engine.net.model.apply(weights, batch["image"].astype(jnp.float32) / 255, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

        updates, optimizer_state = engine.optimizer.update(
            jax.jit(jax.grad(loss))(weights), optimizer_state, weights
        )
        weights = optax.apply_updates(weights, updates)
    for algorithm in (usnet(engine, num_subnets=1), snet(engine, widths=(1.0,), private_affine=False)):
        ours = trained(algorithm)
        assert_trees_close(merge_variables(ours.params, ours.affine["shared"]), weights)


def test_usnet_on_one_width_is_plain_training_at_n_times_the_rate():
    sandwich = trained(usnet(engine_of(min_width=1.0, decay=0.0), student_target="labels"))
    plain = trained(usnet(engine_of(lr=0.4, decay=0.0), num_subnets=1))
    assert_trees_close(sandwich.params, plain.params)


def test_gradients_of_the_subnets_are_summed():
    """Without momentum and decay, the update of two switches is the sum of their updates."""
    engine = engine_of(decay=0.0, momentum=0.0)
    start = snet(engine, widths=(1.0,), private_affine=False).init(0).params
    move = {}
    for widths in ((1.0,), (0.25,), (1.0, 0.25)):
        algorithm = snet(engine, widths=widths, private_affine=False)
        move[widths] = jax.tree.map(jnp.subtract, trained(algorithm, steps=1).params, start)
    both = jax.tree.map(jnp.add, move[1.0,], move[0.25,])
    assert_trees_close(move[1.0, 0.25], both)


def test_masked_and_sliced_slots_take_the_same_step():
    engine = engine_of()
    subnet = engine.net.space.uniform(0.5)
    results = []
    for fixed, rows in ((tuple(subnet.tolist()), subnet[None][:0]), (None, subnet[None])):
        slots = (Slot("a", fixed),)
        step, state = ComposedStep(engine, slots), engine.init(0, slots)
        for batch in batches(3):
            state, _ = step(state, batch, rows)
        results.append(state.trainable)
    assert_trees_close(*results)


@pytest.mark.slow
def test_policies_take_the_same_steps():
    """Sliced, bucketed and masked: the same parameters after eight steps, through different programs."""
    results, forms = {}, {}
    for policy in ("sliced", "bucketed", "masked"):
        algorithm = usnet(engine_of(policy=policy, lr=0.02, max_programs=6))
        results[policy] = trained(algorithm, steps=8).trainable
        forms[policy] = {key[0] for key, _ in algorithm.at(0).step.programs.live() if isinstance(key, tuple)}
    assert not any(form.masked for form in forms["sliced"])
    assert len({form.sizes for form in forms["masked"]}) == 1
    assert len({form.sizes for form in forms["bucketed"]}) > 1
    for policy in ("bucketed", "masked"):
        assert_trees_close(results[policy], results["sliced"], "training")


def test_auto_compiles_nothing_after_its_rungs_and_stays_in_its_bounds():
    """Forty proposals of the sampler run in the few programs of the plan."""
    engine = engine_of(policy="auto", max_programs=6)
    step = usnet(engine, num_subnets=3).at(0).step
    largest, smallest = (tuple(s.tolist()) for s in (engine.net.space.largest, engine.net.space.smallest))
    assert len(step.forms.rungs) == 2
    forms = set()
    for subnet in step.expected[:40]:
        form = step.forms.of(step.slots[2], subnet)
        assert (np.array(form.sizes) >= subnet).all()
        forms.add(form.sizes)
    assert forms == {tuple(rung.tolist()) for rung in step.forms.rungs}
    assert all(step.forms.of(step.slots[2], rung).masked for rung in step.forms.rungs), (
        "one program per rung, not two"
    )
    assert step.forms.of(step.slots[0], largest) == Form(largest, masked=False)
    assert step.forms.of(step.slots[1], smallest) == Form(smallest, masked=False)


@pytest.mark.parametrize("ends", [True, False], ids=["sandwich", "random only"])
def test_programs_of_a_plan_fit_into_its_bound(ends):
    """Else they would push each other out and compile again in every round."""
    options = {"student_target": "labels", "sample_max": ends, "sample_min": ends}
    step = usnet(engine_of(policy="auto", max_programs=9), **options).at(0).step
    keys = set()
    for row in step.expected:
        for i, slot in enumerate(step.slots):
            form = step.forms.of(slot, row if slot.subnet is None else slot.subnet)
            keys.add((form, slot.target, slot.stats is None, i == 0))
    assert len(keys) + 2 <= 9
    assert len(step.forms.rungs) > 1


def test_auto_runs_exact_sizes_where_the_subnets_are_few():
    step = usnet(engine_of(min_width=0.6, policy="auto", max_programs=64)).at(0).step
    assert step.executed_macs() == step.exact_macs()
    assert not any(step.forms.of(step.slots[2], subnet).masked for subnet in step.expected[:20])


def test_compiles_are_counted_and_end_with_the_warm_up():
    algorithm = usnet(engine_of())
    trained(algorithm, steps=1)
    before = algorithm.at(0).step.programs.compiles
    assert before == len(algorithm.at(0).step.programs) == 5  # prepare, max, min, random, update
    state = algorithm.init(0)
    for step, batch in enumerate(batches(3)):
        state, _ = algorithm.at(0).step(state, batch, algorithm.propose({}, step + 7))
    assert algorithm.at(0).step.programs.compiles == before


def test_rematerialisation_changes_no_result():
    plain = trained(usnet(engine_of(), num_subnets=1), steps=2)
    remat = trained(usnet(engine_of(remat=True), num_subnets=1), steps=2)
    assert_trees_close(remat.trainable, plain.trainable)


def test_students_learn_from_the_detached_softmax_of_the_largest():
    """No gradient of the students' loss reaches the teacher, and the labels do not reach the students."""
    engine = engine_of(decay=0.0, momentum=0.0, min_width=0.5)
    wide, narrow = (tuple(engine.net.space.uniform(w).tolist()) for w in (1.0, 0.5))
    slots = (Slot("max", wide), Slot("min", narrow, target="teacher"))
    start = engine.init(0, slots)
    state, metrics = ComposedStep(engine, slots)(
        engine.init(0, slots), next(batches(1)), np.zeros((0, 6), np.int32)
    )
    batch = next(batches(1))
    images = batch["image"].astype(jnp.float32) / 255

    @functools.partial(jax.jit, static_argnums=1)
    def logits(params, subnet):
        variables = merge_variables(params, start.affine["shared"])
        return engine.net.model.apply(variables, images, engine.net.space.sliced(subnet), train=True)

    teacher = jax.nn.softmax(logits(start.params, wide))

    def loss(params):
        hard = optax.softmax_cross_entropy_with_integer_labels(logits(params, wide), batch["label"]).mean()
        return hard + optax.softmax_cross_entropy(logits(params, narrow), teacher).mean()

    want = jax.tree.map(lambda p, g: p - 0.1 * g, start.params, jax.jit(jax.grad(loss))(start.params))
    assert_trees_close(state.params, want)
    soft = optax.softmax_cross_entropy(logits(start.params, narrow), teacher).mean()
    assert float(metrics["min/loss"]) == pytest.approx(float(soft), rel=1e-4)


def test_private_statistics_do_not_change_training():
    """S-Net, claim 2: with shared gammas and betas both kinds of statistics give the same weights."""
    widths = (0.25, 1.0)
    private = trained(snet(engine_of(), widths=widths, private_affine=False))
    naive = trained(snet(engine_of(), widths=widths, private_affine=False, private_stats=False))
    assert_trees_close(private.trainable, naive.trainable)
    assert set(private.batch_stats) == {"w0.25", "w1.00"}
    assert set(naive.batch_stats) == {"shared"}


def test_a_switch_moves_only_its_own_gammas_and_statistics():
    """A collection is never updated by a width that does not own it."""
    engine = engine_of()
    slots = (Slot("a", tuple(engine.net.space.largest.tolist()), affine="a", stats="a"),)
    others = (*slots, dataclasses.replace(slots[0], affine="b", stats="b"))
    start = engine.init(0, others)
    before = jax.tree.map(np.asarray, (start.affine["b"], start.batch_stats["b"]))
    state, _ = ComposedStep(engine, slots)(start, next(batches(1)), np.zeros((0, 6), np.int32))
    assert_trees_equal((state.affine["b"], state.batch_stats["b"]), before)
    assert not np.array_equal(state.batch_stats["a"]["stem_norm"]["mean"], before[1]["stem_norm"]["mean"])


def test_running_statistics_have_the_papers_rate():
    engine = engine_of()
    slots = (Slot("a", tuple(engine.net.space.largest.tolist()), stats="a"),)
    start, batch = engine.init(0, slots), next(batches(1))
    zero = jax.tree.map(np.zeros_like, start.batch_stats["a"])
    own = engine.collect(start, "shared")(zero, engine.net.space.largest, batch, 0)
    want = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, start.batch_stats["a"], own)
    state, _ = ComposedStep(engine, slots)(start, batch, np.zeros((0, 6), np.int32))
    assert_trees_close(state.batch_stats["a"], want)


def test_micro_batches_average_the_gradients_of_their_parts():
    """Part p of 2 is rows p, p + 2, ...; each part has its own batch statistics."""
    engine = engine_of(decay=0.0, momentum=0.0)
    batch, whole, moves = next(batches(1)), usnet(engine), []
    start = whole.init(0).params
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        part = {name: value[rows] for name, value in batch.items()}
        moves.append(jax.tree.map(jnp.subtract, trained(whole, data=[part]).params, start))
    split = trained(usnet(dataclasses.replace(engine, micro_batches=2)), data=[batch]).params
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *moves)
    assert_trees_close(jax.tree.map(jnp.subtract, split, start), mean)


def test_moving_average_follows_the_weights():
    state = trained(usnet(engine_of(average_decay=0.0)))
    assert_trees_equal(state.average, state.trainable)
    slow = trained(usnet(engine_of(average_decay=0.999)))
    assert not np.allclose(slow.average["params"]["stem"]["kernel"], slow.params["stem"]["kernel"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_subnets": 0}, "num_subnets"),
        ({"student_target": "wish"}, "student_target"),
        ({"sample_max": False}, "needs the largest network"),
    ],
)
def test_usnet_refuses_what_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        usnet(engine_of(), **options)


@pytest.mark.parametrize("widths", [(), (0.5, 0.5), (0.1,)])
def test_snet_refuses_switches_that_cannot_be(widths):
    with pytest.raises(UserError, match="width"):
        snet(engine_of(), widths=widths)


def test_snet_runs_at_its_switches_only():
    algorithm = snet(engine_of(), widths=(0.25, 1.0))
    space = engine_of().net.space
    with pytest.raises(UserError, match=r"w0\.25"):
        algorithm.choose(algorithm.init(0), {"w0.50": space.uniform(0.5)})
