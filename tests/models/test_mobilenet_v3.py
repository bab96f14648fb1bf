"""MobileNetV3: which activations and gates its blocks have."""

import jax
import jax.numpy as jnp

from helpers.trees import assert_trees_close
from slimjax.models.inverted_residual import InvertedResidual
from slimjax.models.mobilenet_v3 import LARGE, SMALL
from slimjax.nn.layers import BatchNorm, FeatureMap
from slimjax.nn.widths import Group


def test_mobilenet_v3_activations_are_those_of_the_tables():
    swish = {rows: [row.activation is jax.nn.hard_swish for row in rows] for rows in (LARGE, SMALL)}
    assert swish == {LARGE: [False] * 6 + [True] * 9, SMALL: [False] * 3 + [True] * 8}


def test_squeeze_excite_of_an_inverted_residual_is_gated_by_a_hard_sigmoid(images):
    group, squeeze = Group("g", 8), Group("s", 4, fixed=True)
    block = InvertedResidual(None, group, 3, 1, jax.nn.relu, squeeze, BatchNorm, jnp.float32)
    x = FeatureMap.of(jnp.asarray(images))
    variables = block.init(jax.random.key(0), x, True)
    gate = variables["params"]["squeeze_excite"]["expand"]
    gate["kernel"] *= 0

    def gated(bias):  # the gate scales everything after it
        gate["bias"] = jnp.full(3, bias)
        return block.apply(variables, x, False).value

    assert_trees_close(gated(-1.0), gated(3.0) * (2 / 6))
