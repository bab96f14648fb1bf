"""What is static in every form, such as a resolution: programs, rungs and scores have it each for its own."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers.engines import batches, engine_of
from helpers.ofa import subnet_of, tiny
from helpers.scorers import decided
from helpers.trees import TOLERANCE, assert_trees_close
from slimjax import sharding
from slimjax.nn import losses
from slimjax.step import rungs
from slimjax.step.composed import ComposedStep
from slimjax.step.scoring import Scorer
from slimjax.step.slots import Slot
from slimjax.vectors import WidthVectors


def ofa_engine(**options):
    return dataclasses.replace(engine_of(**options), net=tiny())


def drawn(count, seed=0):
    fractions = np.random.default_rng(seed).uniform(0.5, 1, (count, len(tiny().space)))
    return WidthVectors(tiny()).subnets(fractions)


@pytest.mark.parametrize("count", [2, 5, 9])
def test_rungs_cover_every_draw_with_what_is_static_as_it_is(count):
    net, draws = tiny(), drawn(60)
    (static,) = net.space.static
    found = rungs.choose(draws, net.macs, count, net.space.static)
    assert len(found) <= count
    assert set(found[:, static]) == {0, 1}
    for subnet in draws:
        rung = found[rungs.cover(found, subnet, net.space.static)]
        assert (rung >= subnet).all()
        assert rung[static] == subnet[static]
    assert rungs.cover(found[found[:, static] == 1], net.space.smallest, net.space.static) is None


def test_every_resolution_has_a_rung_of_its_own_even_where_programs_are_few():
    found = rungs.choose(drawn(60), tiny().macs, 1, tiny().space.static)
    assert sorted(found[:, -1]) == [0, 1]


@pytest.mark.parametrize("policy", ["auto", "bucketed", "masked"])
def test_other_paths_compile_nothing_new(policy):
    """In the steps after all resolutions have been met."""
    engine = ofa_engine(policy=policy, max_programs=3)
    net, draws = engine.net, drawn(40)
    slots = (Slot("max", tuple(net.space.largest.tolist())), Slot("random", target="teacher"))
    step, state = ComposedStep(engine, slots, draws), engine.init(0, slots)
    both = [next(row for row in draws if row[-1] == option) for option in (0, 1)]
    compiled = []
    for number, batch in enumerate(batches(8)):
        subnet = both[number] if number < 2 else drawn(1, seed=number)[0]
        state, metrics = step(state, batch, subnet[None])
        compiled.append(step.counts().compiled)
        assert np.isfinite(float(metrics["random/loss"]))
    assert compiled[0] < compiled[1] == compiled[-1] == step.counts().live


def test_policies_agree_on_subnets_of_every_resolution():
    results = {}
    net = tiny()
    rows = [subnet_of(net, resolution=side) for side in ("6", "8")]
    for policy in ("sliced", "bucketed", "masked"):
        engine = ofa_engine(policy=policy, lr=0.02)
        slots = (Slot("max", tuple(net.space.largest.tolist())), Slot("random", target="teacher"))
        step, state = ComposedStep(engine, slots, drawn(40)), engine.init(0, slots)
        for row, batch in zip(rows, batches(2), strict=True):
            state, _ = step(state, batch, row[None])
        results[policy] = state.trainable
    assert_trees_close(results["bucketed"], results["sliced"], "training")
    assert_trees_close(results["masked"], results["sliced"], "training")


@pytest.mark.parametrize("devices", [1, 2])
def test_scores_are_those_of_each_subnet_alone(devices):
    engine = ofa_engine(devices=devices, policy="auto", max_programs=4)
    net, state = engine.net, decided(engine)
    batch, subnets = next(batches(1)), drawn(10)
    shards = ("batch",) if devices == 1 else ("batch", "subnets")
    weights, images = jax.tree.map(np.asarray, state.variables()), engine.prepare_test(batch["image"])
    logits = [net.apply(weights, images, net.space.sliced(subnet), train=True) for subnet in subnets]
    targets = losses.smooth_labels(batch["label"], 5, 0.0, "all")
    expected = [float(losses.cross_entropy(one, targets)) for one in logits]
    for shard in shards:
        scorer = Scorer(engine, drawn(60, seed=1), shard=shard)
        assert not scorer.layout.boundaries
        data = sharding.put_batch(engine.mesh, batch)
        found = scorer(state, subnets, data)
        np.testing.assert_allclose(found["loss"], expected, **TOLERANCE["float32"])
        scorer(state, drawn(60, seed=1), data)  # all that the rungs were chosen for
        before = scorer.counts()
        scorer(state, drawn(20, seed=3), data)
        assert scorer.counts() == before
        assert before.live == before.compiled


def test_subnet_that_no_rung_of_its_resolution_covers_runs_at_full_size_of_it():
    engine = ofa_engine(policy="auto")
    net, state, batch = engine.net, decided(engine), next(batches(1))
    wide = net.space.largest.copy()
    wide[-1] = 0
    scorer = Scorer(engine, np.stack([net.space.smallest, net.space.largest]))
    assert scorer.layout.rungs.tolist() == [net.space.smallest.tolist(), net.space.largest.tolist()]
    found = scorer(state, wide[None], batch)
    images = engine.prepare_test(batch["image"])
    logits = net.apply(state.variables(), images, net.space.sliced(wide), train=True)
    expected = float(losses.cross_entropy(logits, losses.smooth_labels(batch["label"], 5, 0.0, "all")))
    np.testing.assert_allclose(found["loss"], [expected], **TOLERANCE["float32"])


def test_calibration_and_test_run_at_the_subnets_resolution():
    engine = ofa_engine()
    net, state = engine.net, engine.init(0, (Slot("max"),))
    batch = next(batches(1)) | {"weight": np.ones(16, np.float32)}
    like = net.variable_shapes["batch_stats"]
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    for side in ("6", "8"):
        subnet = subnet_of(net, resolution=side)
        stats = engine.collect(state, "shared")(zeros, subnet, batch, 0)
        variables = state.variables() | {"batch_stats": zeros}
        images = batch["image"].astype(np.float32) / 255
        sliced = net.space.sliced(subnet)
        _, new = net.apply(variables, images, sliced, train=True, mutable=["batch_stats"])
        assert_trees_close(stats, new["batch_stats"])
        logits = net.apply(variables | {"batch_stats": stats}, images, sliced, train=False)
        hits = (np.asarray(logits).argmax(-1) == batch["label"]).sum()
        assert float(engine.test(state, "shared", stats, subnet, batch)["correct"]) == hits
