"""Mean and variance of a batch in one pass over it, as exact as two where it matters."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

FAR = 32.0
"""Means that are further from zero than so many deviations take a second pass for the variance."""

SECOND_PASS = "second_pass"
"""The name of that pass in a program: it hardly ever runs, so no estimate counts it."""

Average = Callable[[jax.Array], jax.Array]
"""The mean over the devices that share a batch."""


def moments(value: jax.Array, average: Average, two_pass: bool, mends: bool) -> jax.Array:
    """Mean and (biased) variance by channel: [..., C] -> [2, 1, ..., 1, C], of the type of `value`.

    One pass takes E[x^2] - E[x]^2, which accelerators compute while a convolution writes x, and one exchange between
    devices. It loses digits where a mean is far from zero (`FAR`).

    Args:
      value: float32 or float64.
      two_pass: take the variance about the mean, always.
      mends: do so where a mean is far from zero; false where x has come from half precision, which has no digits left
        there that a second pass could save.
    """
    mean_of = functools.partial(jnp.mean, axis=tuple(range(value.ndim - 1)), keepdims=True)
    about = lambda mean: average(mean_of(jnp.square(value - mean)))  # noqa: E731
    if two_pass:
        mean = average(mean_of(value))
        return jnp.stack([mean, about(mean)])
    mean, square = average(jnp.stack([mean_of(value), mean_of(jnp.square(value))]))
    variance = square - jnp.square(mean)
    better = jnp.maximum(variance, 0)
    if mends:
        far = jnp.any(jnp.square(mean) > FAR**2 * variance)
        with jax.named_scope(SECOND_PASS):
            better = jax.lax.cond(far, lambda: about(mean), lambda: better)
    # However the value was found, the gradient is that of the difference: it has lost no digits.
    return jnp.stack([mean, variance + jax.lax.stop_gradient(better - variance)])
