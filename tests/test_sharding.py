"""One device and eight: the same training."""

import jax
import numpy as np
import pytest
from conftest import assert_trees_close
from test_algorithms import batches, engine_of

from slimjax import sharding
from slimjax.algorithms import snet, usnet
from slimjax.errors import UserError
from slimjax.layers import BatchNorm


def trajectory(engine, devices, make=usnet, steps=4):
    """Losses of each step, and the last state, on a mesh of so many devices."""
    mesh = sharding.make_mesh(devices)
    algorithm = make(engine)
    state, losses = sharding.put_replicated(mesh, algorithm.init(0)), []
    for step, rows in enumerate(batches(steps)):
        subnets = algorithm.propose(state.algorithm, step)
        state, metrics = algorithm.step(state, sharding.put_batch(mesh, rows), subnets)
        losses.append([float(value) for name, value in sorted(metrics.items()) if "loss" in name])
    assert len(state.step.sharding.device_set) == devices, "the state did not stay on the mesh"
    return np.array(losses), jax.tree.map(np.asarray, state)


def per_device(engine, shards):
    from dataclasses import replace
    from functools import partial

    model = engine.net.model.clone(norm=partial(BatchNorm, shards=shards))
    return replace(engine, net=replace(engine.net, model=model))


@pytest.mark.parametrize(
    "make", [usnet, lambda engine: snet(engine, widths=(0.25, 1.0))], ids=["usnet", "snet"]
)
def test_one_device_and_eight_give_the_same_training(make):
    one, one_state = trajectory(engine_of(), 1, make)
    eight, eight_state = trajectory(engine_of(), 8, make)
    np.testing.assert_allclose(eight, one, atol=1e-4)
    assert_trees_close(eight_state.params, one_state.params)


def test_statistics_per_device_differ_from_global_ones_and_not_with_the_layout():
    """Eight parts on eight devices are the same eight parts on one device; global statistics are not."""
    alone, _ = trajectory(per_device(engine_of(), 8), 1)
    spread, _ = trajectory(per_device(engine_of(), 8), 8)
    np.testing.assert_allclose(spread, alone, atol=1e-4)
    together, _ = trajectory(engine_of(), 1)
    assert np.abs(together - alone).max() > 1e-3


def test_mesh_refuses_more_devices_than_there_are():
    with pytest.raises(UserError, match="expected 1 to 8"):
        sharding.make_mesh(9)


def test_batches_are_split_over_the_devices():
    mesh = sharding.make_mesh(4)
    batch = sharding.put_batch(mesh, {"image": np.zeros((8, 2, 2, 1), np.uint8)})["image"]
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 2, 2, 1)}
