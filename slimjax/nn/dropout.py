"""What is dropped at random in training, with a key for each image, however a batch is shared out."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Dropout of the classifier's input. Every image has a key of its own, however a batch is shared out.

    Args:
      rate: probability with which an entry is set to zero; the others are divided by what is left of 1.
      keys: uint32 [B, ...], raw keys.
    """

    rate: float
    keys: jax.Array

    def __call__(self, value: jax.Array) -> jax.Array:
        """[B, C] to [B, C]."""
        draw = functools.partial(jax.random.bernoulli, p=1 - self.rate, shape=value.shape[1:])
        kept = jax.vmap(lambda key: draw(jax.random.wrap_key_data(key)))(self.keys)
        return jnp.where(kept, value / (1 - self.rate), jnp.zeros((), value.dtype))

    def drops_path(self, number: int, rate: float) -> jax.Array:
        """[B]: factors of a residual branch: 0 with a probability of `rate` for each image, else 1 / (1 - rate).

        Args:
          number: of the branch; each has draws of its own.
        """
        draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1 + number), 1 - rate)  # noqa: E731
        kept = jax.vmap(lambda key: draw(jax.random.wrap_key_data(key)))(self.keys)
        return kept / (1 - rate)
