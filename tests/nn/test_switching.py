"""The switch: values and gradients of JAX's own, and less that is saved."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax import sharding
from slimjax.nn.switching import switch

X = np.random.default_rng(0).uniform(0.5, 1.5, (8, 4)).astype(np.float32)
W = {"a": np.linspace(0.5, 1, 16, dtype=np.float32).reshape(4, 4), "b": np.float32(0.3), "n": np.int32(2)}


def first(w, x):
    """Saves several arrays of the result's shape."""
    return jnp.exp(jnp.sin(x @ w["a"]) * x) * w["n"]


def second(w, x):
    """Uses neither `a` nor the whole of x."""
    return jnp.tanh(x * w["b"]) + jnp.zeros((8, 4)).at[0].set(x[0])


def third(w, x):
    """Does nothing, and saves nothing."""
    return x


BRANCHES = (first, second, third)


def value_and_gradients(chosen, index, w=W, x=X, branches=BRANCHES):
    @functools.partial(jax.value_and_grad, argnums=(1, 2), allow_int=True, has_aux=True)
    def loss(index, w, x):
        result = chosen(index, branches, w, x)
        return jnp.sin(result).sum(), result

    (_, result), gradients = jax.jit(loss)(jnp.int32(index), w, x)
    floats = lambda leaf: leaf if leaf.dtype != jax.dtypes.float0 else np.zeros(leaf.shape)  # noqa: E731
    return result, jax.tree.map(floats, gradients)


@pytest.mark.parametrize("index", range(3))
def test_values_and_gradients_are_those_of_lax_switch(index):
    ours, theirs = value_and_gradients(switch, index), value_and_gradients(jax.lax.switch, index)
    assert_trees_close(ours, theirs)
    plain = value_and_gradients(lambda _, branches, *operands: branches[index](*operands), index)
    assert_trees_close(ours, plain)


@pytest.mark.parametrize("index", range(2))
def test_gradients_of_what_a_branch_does_not_use_are_exactly_zero(index):
    """Even if it is NaN, as are all operands of the branch that does not run."""
    mine, other = ("a", "b") if index == 0 else ("b", "a")
    clean = value_and_gradients(switch, index)
    dirty = value_and_gradients(switch, index, {**W, other: np.full_like(W[other], np.nan)})
    assert_trees_equal(dirty, clean)
    assert (np.asarray(dirty[1][0][other]) == 0).all()
    assert (np.asarray(dirty[1][0][mine]) != 0).all()


def nested(index, branches, w, x):
    """A switch in a branch of a switch."""
    inner = lambda w, x: switch(1 - index, branches[:2], w, 2 * x)  # noqa: E731
    return switch(index, [inner, lambda w, x: switch(index, branches[1:], w, x)], w, x)


@pytest.mark.parametrize(("index", "want"), [(0, lambda w, x: second(w, 2 * x)), (1, third)])
def test_switches_nest(index, want):
    ours = value_and_gradients(nested, index)
    assert_trees_close(ours, value_and_gradients(lambda _, __, w, x: want(w, x), index))


@pytest.mark.parametrize("index", range(3))
def test_devices_that_see_different_data_switch_alike(index):
    """Weights on every device, a batch that is split: the gradients of weights are summed over the devices."""

    def spread(index, branches, w, x):
        def part(index, w, x):
            own = [lambda w, x: x @ w["a"], lambda w, x: x * w["b"], third]
            return switch(index, own, w, x)

        data = PartitionSpec(sharding.DATA)
        specs = {"in_specs": (PartitionSpec(), PartitionSpec(), data), "out_specs": data}
        return jax.shard_map(part, mesh=sharding.make_mesh(8), **specs)(index, w, x)

    branches = (lambda w, x: x @ w["a"], lambda w, x: x * w["b"], third)
    one = value_and_gradients(switch, index, branches=branches)
    assert_trees_close(value_and_gradients(spread, index), one)


def saved(chosen, branches, w, x):
    """Shapes of what the forward pass keeps for the backward pass, without the operands."""
    pull = jax.eval_shape(
        lambda index, w, x: jax.vjp(lambda w, x: chosen(index, branches, w, x), w, x)[1], 0, w, x
    )
    shapes = [leaf.shape for leaf in jax.tree.leaves(pull) if leaf.dtype == jnp.float32]
    for leaf in jax.tree.leaves((w, x)):
        if leaf.shape in shapes:
            shapes.remove(leaf.shape)
    return shapes


def chain(count):
    """A branch that saves `count` arrays of the batch's shape: the cosines of its sines' arguments."""

    def run(w, x):
        for _ in range(count):
            x = jnp.sin(x)
        return x * w

    return run


def test_branches_share_the_places_that_they_save_to():
    """Branches that save 1 + 1, 3 + 1 and 2 + 1 arrays: four places serve all."""
    w, x = np.float32(2), np.ones((8, 2), np.float32)
    branches = [chain(1), chain(3), chain(2)]
    chex.assert_equal(saved(switch, branches, w, x), [(8, 2)] * 4)


def test_operands_are_not_saved_again():
    w, x = np.ones((4, 4), np.float32), np.ones((8, 4), np.float32)
    assert saved(switch, [lambda w, x: x @ w, lambda w, x: x], w, x) == []


def test_places_are_shared_by_type_alone():
    """A branch that saves another shape has a place of its own, and finds its values again."""
    narrow = lambda w, x: x * jnp.exp(jnp.sin(x[:, :1]))  # noqa: E731
    wide = lambda w, x: jnp.sin(jnp.sin(x))  # noqa: E731
    for index in (0, 1):
        ours, theirs = (
            value_and_gradients(how, index, branches=(narrow, wide)) for how in (switch, jax.lax.switch)
        )
        assert_trees_close(ours, theirs)
