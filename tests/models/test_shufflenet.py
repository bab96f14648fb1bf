"""ShuffleNet: its groups of channels are shuffled, so that none stays alone."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers.trees import assert_trees_close
from slimjax.models import shufflenet
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.widths import Group, Widths


def test_shuffled_convolution_is_that_of_a_permuted_input():
    sources, target = Group("in", 12, multiple_of=3), Group("out", 6, multiple_of=3)
    value = np.random.default_rng(0).normal(size=(2, 4, 4, 12)).astype(np.float32)
    x = FeatureMap(value, sources, Widths())
    ours, variables = Conv(target, 1, conv_groups=3, shuffled=True).init_with_output(jax.random.key(0), x)
    # In the i-th triple, position j takes the channel of group j - i.
    order = [3 * i + (j - i) % 3 for i in range(4) for j in range(3)]
    plain = Conv(target, 1, conv_groups=3)
    kernel = variables["params"]["kernel"]
    theirs = plain.apply({"params": {"kernel": kernel}}, x.with_value(value[..., order]))
    assert_trees_close(ours.value, theirs.value)


def test_shufflenet_unit_mixes_all_conv_groups():
    """Every conv group of a unit's output depends on every one of its input."""
    outer, inner = Group("outer", 12, multiple_of=3), Group("inner", 9, multiple_of=3)
    unit = shufflenet.Unit(inner, outer, 1, shufflenet.CONV_GROUPS, BatchNorm, jnp.float32)
    value = jnp.asarray(np.random.default_rng(0).normal(size=(16, 1, 1, 12)), jnp.float32)
    x = FeatureMap(value, outer, Widths())
    variables = unit.init(jax.random.key(0), x, True)

    def output(value):
        return unit.apply(variables, x.with_value(value), False).value.sum((0, 1, 2))

    slopes = np.abs(jax.jacobian(output)(x.value)).reshape(4, 3, 16, 4, 3).max((0, 2, 3))
    assert (slopes > 0).all(), "[output group, input group]"
