"""One device and eight: the same training."""

from dataclasses import replace
from functools import partial

import chex
import jax
import numpy as np
import pytest

from helpers.engines import batches, engine_of, in_run
from helpers.tfnas import tiny_net
from helpers.trees import assert_trees_close
from slimjax import sharding
from slimjax.algorithms import jst, snet, tfnas, usnet, wpc
from slimjax.errors import UserError
from slimjax.nn.layers import BatchNorm
from slimjax.profiling import hlo
from slimjax.step.state import place


def trajectory(engine, make=usnet, steps=4):
    """Losses of each step, and the last state, on the engine's mesh."""
    mesh, algorithm = engine.mesh, make(engine)
    state, losses = place(mesh, algorithm.init(0)), []
    for step, rows in enumerate(batches(steps)):
        state = algorithm.revise(state, step, lambda subnets: 1 / subnets.sum(-1))
        subnets = algorithm.propose(state.algorithm, step)
        state, metrics = algorithm.turn(step).step(state, sharding.put_batch(mesh, rows), subnets)
        losses.append(float(value) for name, value in sorted(metrics.items()) if "loss" in name)
    assert len(state.step.sharding.device_set) == mesh.size, "the state did not stay on the mesh"
    return np.concatenate([list(found) for found in losses]), jax.tree.map(np.asarray, state), algorithm


def per_device(engine):
    model = engine.net.model.clone(norm=partial(BatchNorm, sync=False))
    return replace(engine, net=replace(engine.net, model=model))


MAKE = {
    "usnet": usnet,
    "snet": lambda engine: snet(engine, widths=(0.25, 1.0)),
    # Coarse, two subnets' weights and alphas, and fine-tuning.
    "jst": lambda engine: jst(in_run(engine, 6), num_subnets=2, coarse=1, weights=1, alphas=1, fine_tuning=1),
    # A step in each phase: dense, two rounds, together.
    "wpc": lambda engine: wpc(in_run(engine, 4), budgets=BUDGETS, dense=1, lasso=1, fused=1),
    # Two paths twice, the architecture; and once more, with channels sorted and scaled.
    "tfnas": lambda engine: tfnas(
        replace(in_run(engine, 6), net=tiny_net()), budget="macs<=0.6", warmup=0, search=2
    ),
}
BUDGETS = ("macs<=0.7", "macs<=0.4")


@pytest.mark.parametrize("name", MAKE)
def test_one_device_and_eight_give_the_same_training(name):
    one, one_state, _ = trajectory(engine_of(), MAKE[name], steps=6)
    eight, eight_state, _ = trajectory(engine_of(devices=8), MAKE[name], steps=6)
    chex.assert_trees_all_close(eight_state.algorithm, one_state.algorithm, atol=1e-4)
    for exact in ("subnets", "ids"):
        chex.assert_trees_all_equal(*(s.algorithm.get(exact) for s in (one_state, eight_state)))
    np.testing.assert_allclose(eight, one, atol=1e-4)
    assert_trees_close(eight_state.params, one_state.params)
    assert_trees_close(eight_state.batch_stats, one_state.batch_stats)


def test_statistics_per_device_are_those_of_its_rows():
    """Two devices with their own statistics take the mean of two steps on half a batch each."""
    plain = partial(usnet, num_subnets=1)
    options = {"decay": 0.0, "momentum": 0.0}
    state = trajectory(per_device(engine_of(devices=2, **options)), plain, steps=1)[1]
    start = plain(engine_of(**options)).init(0)
    rows, halves = next(batches(1)), []
    for half in (slice(0, 8), slice(8, 16)):
        part = {name: value[half] for name, value in rows.items()}
        algorithm = plain(engine_of(**options))
        halves.append(algorithm.at(0).step(algorithm.init(0), part, algorithm.propose({}, 0))[0])
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(h.params for h in halves))
    assert_trees_close(state.params, mean)
    stats = jax.tree.map(lambda a, b: (a + b) / 2, *(h.batch_stats for h in halves))
    assert_trees_close(state.batch_stats, stats)
    together = trajectory(engine_of(**options), plain, steps=1)[1]
    assert distance(state.params, together.params) > 0.01 * distance(state.params, start.params)


def distance(a, b) -> float:
    return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_gradients_cross_the_devices_in_one_all_reduce():
    """Counted in the compiled programs: one in the update; in the gradients none larger than a norm's statistics."""
    algorithm = trajectory(engine_of(devices=8), steps=1)[2]
    widest = max(group.channels for group in engine_of().net.space.groups)
    for key, program in algorithm.at(0).step.programs.live():
        reduced = [found.bytes // 4 for found in hlo.Module.of(program).collectives()]
        if key == "update":
            assert len(reduced) == 1
        else:
            assert max(reduced, default=0) <= 2 * widest, key


def test_mesh_refuses_more_devices_than_there_are():
    with pytest.raises(UserError, match="expected 1 to 8"):
        sharding.make_mesh(9)


def test_batches_are_split_over_the_devices():
    mesh = sharding.make_mesh(4)
    batch = sharding.put_batch(mesh, {"image": np.zeros((8, 2, 2, 1), np.uint8)})["image"]
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 2, 2, 1)}
