"""Plain Flax computes what our largest network computes, so that times can be compared."""

import re

import jax
import numpy as np
import pytest

from helpers.nets import every_layer, named, run, variables_of
from helpers.trees import assert_trees_close
from slimjax import sharding
from slimjax.bench.flax_side import Plain, flax_step
from slimjax.experiment import recipes
from slimjax.experiment.build import build

NETWORKS = ("resnet8", "us_mobilenet_v2", "mobilenet_v3_small")
"""Not ShuffleNet: Flax groups neighbouring channels, ours are interleaved. What that costs is the same."""


def weights_in_order(net, variables):
    """The arrays of each layer that has any, in the order of the forward pass, as Flax names them."""
    for op in net.records.path({choice.name: choice.last for choice in net.space.choices}).ops:
        if op.layer is not None and op.layer.arrays:
            found = {}
            for array in op.layer.arrays:
                if array.collection != "batch_stats":
                    tree = variables[array.collection]
                    for part in op.layer.path:
                        tree = tree[part]
                    found[array.name.removeprefix("depthwise_")] = tree[array.name]
            yield op.layer, found


@pytest.mark.parametrize("name", [*NETWORKS, "every layer"])
def test_plain_flax_computes_the_largest_network(name, images):
    net = every_layer() if name == "every layer" else named(name)
    variables, plain = variables_of(net), Plain.of(net)
    shapes = jax.eval_shape(plain.init, jax.random.key(0), images)
    params = {}
    names = sorted(shapes["params"], key=lambda name: int(re.search(r"\d+$", name)[0]))
    for key, (layer, found) in zip(names, weights_in_order(net, variables), strict=True):
        assert key.startswith(layer.kind)
        assert {field: array.shape for field, array in found.items()} == {
            field: array.shape for field, array in shapes["params"][key].items()
        }
        params[key] = found
    stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes["batch_stats"])
    theirs, _ = jax.jit(plain.apply, static_argnames="mutable")(
        {"params": params, "batch_stats": stats}, images, mutable=("batch_stats",)
    )
    assert_trees_close(run(net, variables, images, None, train=True)["logits"], theirs)


def test_a_step_of_plain_flax_moves_the_weights_and_keeps_the_shapes():
    config = recipes.embedded("synthetic")
    config.data.update(image_size=8, channels=1, num_classes=4)
    config.model.options = {"channels": (2, 4, 4)}
    config.train.batch_size = 16
    experiment = build(config, jax.devices()[:1])
    step, begin = flax_step(experiment)
    batch = sharding.put_batch(experiment.mesh, next(experiment.train_batches()))
    first = begin()
    before = jax.tree.map(np.asarray, first)
    after = jax.tree.map(np.asarray, step(first, batch))
    assert jax.tree.map(np.shape, before) == jax.tree.map(np.shape, after)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before["params"], after["params"])
    assert all(jax.tree.leaves(moved))
    assert after["step"] == 1
