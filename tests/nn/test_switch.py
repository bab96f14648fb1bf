"""A switch: results and gradients of the branch that runs, and what it keeps for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.nn.convolution import convolve
from slimjax.nn.switch import saved, switch

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 8)), jnp.float32)
WEIGHTS = [jnp.asarray(RNG.normal(size=(8, 8)), jnp.float32) for _ in range(4)]


def layer(number, inner=1):
    """A branch with matrices of its own, whose mask is an integer operand."""

    def branch(weights, x, count):
        hidden = saved(jnp.concatenate([x] * inner, -1) @ jnp.concatenate([weights[number]] * inner))
        hidden = jnp.where(jnp.arange(8) < count, jnp.tanh(hidden), 0)
        return hidden * x, {"mean": hidden.mean(0)}

    return branch


def losses(branches):
    ours = lambda index, *operands: switch(index, branches, *operands)  # noqa: E731
    plain = lambda index, *operands: jax.lax.switch(index, branches, *operands)  # noqa: E731
    return [
        lambda weights, x, index, f=f: (lambda r: (jnp.sum(r[0] ** 2), r[1]))(
            f(index, weights, x, jnp.int32(5))
        )
        for f in (ours, plain)
    ]


@pytest.mark.parametrize("index", range(4))
def test_results_and_gradients_are_those_of_a_plain_switch(index):
    branches = [layer(0), layer(1, inner=2), layer(2), layer(3, inner=3)]
    run = lambda loss: jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(WEIGHTS, X, index)  # noqa: E731
    got, want = map(run, losses(branches))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    moved = [bool(jnp.any(gradient != 0)) for gradient in got[1][0]]
    assert moved == [number == index for number in range(4)]


def kept(branches, count=8):
    """Numbers that the backward pass has, besides the operands."""
    weights = WEIGHTS * 2

    def run(index):
        pullback = jax.vjp(lambda w, x: switch(index, branches, w, x, jnp.int32(5))[0], weights, X)[1]
        return jax.tree.leaves(pullback)

    leaves = jax.eval_shape(run, jnp.int32(0))
    return sum(leaf.size for leaf in leaves) - sum(w.size for w in weights) - X.size


def test_room_for_eight_branches_is_that_of_one():
    assert kept([layer(number) for number in range(8)]) - kept([layer(0)]) == 0


def test_branches_that_keep_other_shapes_have_room_of_their_own():
    def wide(weights, x, count):
        return saved(jnp.tile(x, 5)).reshape(4, 5, 8).sum(1) ** 2 * count, {}

    narrow = lambda weights, x, count: (saved(x * 2) ** 2, {})  # noqa: E731
    assert kept([narrow, wide]) == kept([narrow]) + kept([wide]) - kept([lambda w, x, count: (x, {})])


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("side", [7, 8])
def test_convolutions_have_the_same_gradients_in_a_branch(side, size, stride, groups):
    x = jnp.asarray(RNG.normal(size=(2, side, side, 8)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(size, size, 8 // groups, 8)), jnp.float32)

    def loss(x, kernel, in_branch):
        y = convolve(x, kernel, stride, groups, in_branch=in_branch)
        return jnp.sum(jnp.sin(y))

    got, want = (
        jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(x, kernel, in_branch) for in_branch in (True, False)
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
