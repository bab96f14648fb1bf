"""Scores of many subnets on one batch: right, in order, however sharded, with few programs."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.engines import batches, engine_of
from helpers.flags import QUICK
from helpers.nets import named
from helpers.paths import REPOSITORY
from helpers.runs import environment
from helpers.scorers import decided, make, random_subnets, related_subnets
from helpers.trees import TOLERANCE, assert_trees_equal
from slimjax import sharding
from slimjax.errors import UserError
from slimjax.nn import convolution, losses
from slimjax.step import rungs, scoring
from slimjax.step.scoring import Scorer


def by_hand(engine, state, batch, subnets, prepare=None):
    """Loss and error of each subnet masked at full size, one after the other, on one device."""
    rows = jax.tree.map(np.asarray, batch)
    images = (prepare or engine.prepare_test)(rows["image"])
    weights = jax.tree.map(np.asarray, state.variables())

    @jax.jit
    def score(subnet):
        logits = engine.net.model.apply(weights, images, engine.net.space.masked(subnet), train=True)
        targets = losses.smooth_labels(
            rows["label"], logits.shape[-1], engine.label_smoothing, engine.smoothing_form
        )
        return losses.cross_entropy(logits, targets), (logits.argmax(-1) != rows["label"]).mean()

    found = np.array([score(jnp.asarray(subnet)) for subnet in subnets], np.float64)
    return {"loss": found[:, 0], "error": found[:, 1]}


def assert_scores_close(found, expected):
    for name in ("loss", "error"):
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], expected[name], **TOLERANCE["float32"])


@pytest.fixture(scope="module", params=[5, 7], ids=["whole", "divided twice"])
def used(request):
    """A scorer that has scored, with all that went in and came out; without and with common beginnings."""
    engine, state, batch, subnets = make(
        label_smoothing=0.1, smoothing_form="others", max_programs=request.param
    )
    draws = random_subnets if request.param == 5 else related_subnets
    subnets, scorer = draws(engine, 12), Scorer(engine, draws(engine, 60, seed=1))
    assert len(scorer.layout.boundaries) == request.param - 5
    before = jax.tree.map(np.array, state)
    found = scorer(state, subnets, batch)
    return engine, state, batch, subnets, scorer, before, found


def test_scores_are_those_of_each_subnet_alone(used):
    engine, state, batch, subnets, scorer, _, found = used
    assert len(scorer.layout.rungs) <= 2
    assert len({call.sizes for call in scorer._plan(subnets)}) > 1, "several, or there is nothing to test"
    assert found["loss"].std() > 0.05
    assert_scores_close(found, by_hand(engine, state, batch, subnets))


def test_scores_are_in_the_order_of_the_subnets(used):
    _, state, batch, subnets, scorer, _, found = used
    order = np.random.default_rng(2).permutation(len(subnets))
    again = scorer(state, subnets[order], batch)
    np.testing.assert_array_equal(again["loss"], found["loss"][order])


def test_error_is_a_share_of_the_images(used):
    _, _, batch, _, _, _, found = used
    images = len(batch["label"])
    assert ((found["error"] >= 0) & (found["error"] <= 1)).all()
    np.testing.assert_allclose(found["error"] * images, np.round(found["error"] * images), atol=1e-4)


def test_state_does_not_change(used):
    _, state, _, _, _, before, _ = used
    assert_trees_equal(state, before)


def test_new_subnets_compile_nothing(used):
    engine, state, batch, subnets, scorer, _, _ = used
    scorer(state, engine.net.space.largest[None], batch)
    compiled = scorer.programs.compiles
    for seed in range(3, 6):
        scorer(state, random_subnets(engine, 5, seed), batch)
    scorer(state, subnets[:1], batch)
    assert scorer.programs.compiles == compiled <= engine.max_programs


def test_loss_is_smoothed_as_training_is(used):
    engine, state, batch, subnets, _, _, found = used
    plain = Scorer(dataclasses.replace(engine, label_smoothing=0.0, policy="masked"))
    assert np.abs(plain(state, subnets, batch)["loss"] - found["loss"]).max() > 0.01


def test_subnet_beyond_the_rungs_runs_at_full_size():
    engine, state, batch, subnets = make(4)
    small = np.minimum(subnets, engine.net.space.uniform(0.5))
    scorer = Scorer(engine, small)
    mixed = np.concatenate([small[:2], engine.net.space.largest[None]])
    assert_scores_close(scorer(state, mixed, batch), by_hand(engine, state, batch, mixed))
    largest = tuple(engine.net.space.largest.tolist())
    assert largest in {key[1] for key, _ in scorer.programs.live()}


@pytest.mark.parametrize("boundaries", [0, 2])
def test_inactive_weights_do_not_leak(boundaries):
    """Everything beyond a rung's subnets is NaN, and no score changes by a bit."""
    engine, state, batch, _ = make(1, max_programs=5 + boundaries)
    space = engine.net.space
    subnets = np.stack([space.uniform(0.5), space.uniform(0.3)])
    draws = related_subnets(engine, 60, seed=1)
    draws[:3] = space.largest
    scorer = Scorer(engine, draws if boundaries else draws[:1])  # rungs are larger than both
    assert len(scorer.layout.boundaries) == boundaries
    half = tuple(int(n) for n in subnets[0])
    keep = jax.tree.map(lambda x: np.array(x.shape), engine.net.cut(state.variables(), half))

    def poison(value, kept):
        inside = np.ones(value.shape, bool)
        for axis, count in enumerate(kept):
            inside &= (np.arange(value.shape[axis]) < count).reshape(-1, *[1] * (value.ndim - axis - 1))
        return np.where(inside, value, np.nan)

    poisoned = jax.tree.map(poison, jax.tree.map(np.asarray, dict(state.variables())), keep)
    assert np.isnan(poisoned["params"]["stem"]["kernel"]).any()
    bad = dataclasses.replace(state, params=poisoned["params"], affine={"shared": poisoned["affine"]})
    clean, found = (scorer(s, subnets, batch) for s in (state, sharding.put_replicated(engine.mesh, bad)))
    np.testing.assert_array_equal(found["loss"], clean["loss"])
    assert np.isfinite(found["loss"]).all()


def test_key_prepares_images_as_for_training_once():
    engine, state, batch, subnets = make(3, policy="masked")
    calls = []

    def shifted(key, images):
        calls.append(1)
        return images / 255 + jax.random.normal(key, images.shape)

    engine = dataclasses.replace(engine, prepare_train=shifted)
    scorer, key = Scorer(engine), jax.random.key(7)
    found = scorer(state, subnets, batch, key=key)
    assert len(calls) == 1
    assert_scores_close(found, by_hand(engine, state, batch, subnets, lambda images: shifted(key, images)))
    other = scorer(state, subnets, batch, key=jax.random.key(8))
    assert np.abs(other["loss"] - found["loss"]).max() > 0.01


@pytest.mark.parametrize(("shard", "boundaries"), [("batch", 0), ("batch", 2), ("subnets", 2)])
def test_eight_devices_give_the_scores_of_one(shard, boundaries):
    engine, state, batch, subnets = make(11, devices=8, label_smoothing=0.1, max_programs=5 + boundaries)
    subnets = related_subnets(engine, 11)
    scorer = Scorer(engine, related_subnets(engine, 60, seed=1), shard=shard)
    assert len(scorer.layout.boundaries) == (boundaries if shard == "batch" else 0)
    assert_scores_close(scorer(state, subnets, batch), by_hand(engine, state, batch, subnets))
    (key, program), *_ = [item for item in scorer.programs.live() if item[0][0] == shard]
    assert ("all-reduce" in program.as_text()) == (shard == "batch"), key


def test_auto_measures_both_and_keeps_one(monkeypatch):
    engine, state, batch, subnets = make(4, devices=2, policy="masked")
    for slow in ("batch", "subnets"):
        clock, scorer = [0.0], Scorer(engine)
        run = scorer._run

        def timed(weights, rows, prepared, calls, run=run, clock=clock, slow=slow):
            clock[0] += len(calls) * (10 if prepared.shard == slow else 1)
            return run(weights, rows, prepared, calls)

        monkeypatch.setattr(scorer, "_run", timed)
        monkeypatch.setattr(scoring.time, "perf_counter", lambda clock=clock: clock[0])
        assert_scores_close(scorer(state, subnets, batch), by_hand(engine, state, batch, subnets))
        assert scorer.shard == ({"batch", "subnets"} - {slow}).pop()


def test_batch_that_devices_cannot_share_is_scored_by_subnets_or_refused():
    engine, batch = engine_of(devices=3, policy="masked"), next(batches(1))
    state, subnets = decided(engine), random_subnets(engine, 3)
    scorer = Scorer(engine)
    assert_scores_close(scorer(state, subnets, batch), by_hand(engine, state, batch, subnets))
    assert scorer.shard == "subnets"
    with pytest.raises(UserError, match="multiple of 3 images"):
        Scorer(engine, shard="batch")(state, subnets, batch)


def test_rungs_are_sizes_that_layers_can_have_and_cpus_compute_well():
    net = named("s_shufflenet", small_images=True, multiplier=0.25, units=(2, 1, 1))
    engine = dataclasses.replace(engine_of(policy="auto"), net=net)
    draws = random_subnets(engine, 50)
    scorer = Scorer(engine, draws)
    assert any(group.multiple_of > 1 for group in net.space.groups)
    for group, sizes in zip(net.space.groups, scorer.layout.rungs.T, strict=True):
        assert all(n == group.channels or n % group.multiple_of == n % convolution.EVEN == 0 for n in sizes)
    assert all(rungs.cover(scorer.layout.rungs, draw) is not None for draw in draws)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_every_subnet_is_planned_once_in_a_program_that_covers_it(width):
    engine, *_, subnets = make(50, devices=width)
    scorer = Scorer(engine, random_subnets(engine, 40, seed=1), shard="subnets")
    calls = scorer._plan(subnets)
    assert {row for call in calls for row in call.rows} == set(range(50))
    assert all((subnets[call.rows] <= np.array(call.sizes)).all() for call in calls)
    assert sum(len(set(call.rows.tolist())) for call in calls) == 50
    whole = -(-50 // width)
    assert whole <= len(calls) <= whole + len(scorer.layout.rungs)


def test_rest_of_a_rung_fills_a_larger_one():
    members, sizes = [[0, 1, 2], [3, 4, 5]], np.array([[2], [4]])
    subnets = np.array([[1]] * 3 + [[3]] * 3)
    scoring._fill_up(members, sizes, subnets, 4)
    assert members == [[0, 1, 2], [3, 4, 5]], "three do not fit into one place"
    members = [[0], [3, 4, 5]]
    scoring._fill_up(members, sizes, subnets, 4)
    assert members == [[], [3, 4, 5, 0]]
    members = [[3], [0, 1, 2]]
    scoring._fill_up(members, np.array([[4], [2]]), subnets, 4)
    assert members == [[3], [0, 1, 2]], "a rung that costs more need not cover"


def test_no_subnets_give_no_scores(used):
    engine, state, batch, _, scorer, *_ = used
    found = scorer(state, np.zeros((0, len(engine.net.space)), np.int32), batch)
    assert {name: len(values) for name, values in found.items()} == {"loss": 0, "error": 0}


def test_wrong_subnets_are_refused_with_the_row(used):
    engine, state, batch, subnets, scorer, *_ = used
    with pytest.raises(UserError, match="row 1: expected"):
        scorer(state, np.stack([subnets[0], engine.net.space.largest + 1]), batch)
    with pytest.raises(UserError, match=r"expected int32 \[N, "):
        scorer(state, subnets[0], batch)
    with pytest.raises(UserError, match="expected one of auto, batch, subnets"):
        Scorer(engine, shard="both")


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one():
    script = (
        "import sys, jax, numpy as np; from slimjax import sharding; sharding.initialize_processes(); jax.devices(); "
        "from helpers.scorers import *; from slimjax.step.scoring import Scorer; "
        "found = [Scorer(e, shard=shard)(s, n, b)['loss'] for shard in ('batch', 'subnets', 'auto') "
        "for e, s, b, n in [two_processes()]]; "
        "said = ['LOSSES', *found[0].round(3), all(np.allclose(f, found[0], rtol=1e-3) for f in found)]; "
        "sys.stdout.write(' '.join(map(str, said)) + chr(10))"  # at once: two processes write to one pipe
    )
    launch = ["launch/local.sh", "2", "--", sys.executable, "-c", script]
    run = {"cwd": REPOSITORY, "check": True, "capture_output": True, "text": True}
    answer = subprocess.run(
        launch, env=environment(SLIMJAX_TIMEOUT="60", PYTHONPATH="tests:.", XLA_FLAGS=QUICK), **run
    )
    lines = [line[line.index("LOSSES") :] for line in answer.stdout.splitlines() if "LOSSES" in line]
    engine, state, batch, subnets = make(5, policy="masked")
    expected = by_hand(engine, state, batch, subnets)["loss"]
    for line in lines:
        _, *values, agree = line.split()
        assert agree == "True"
        np.testing.assert_allclose([float(value) for value in values], expected, atol=2e-3)
    assert len(lines) == 2
