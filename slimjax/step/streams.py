"""Random keys of a step: functions of the run's raw key, the step, and what they are for."""

from __future__ import annotations

import jax

DROPOUT, NOISE, PATHS = (2**31 - number for number in (1, 2, 3))
"""What is dropped, the noise of mixtures, and the drawing of paths. Far from what a step's augmentation folds into the
same key, which counts from 0."""


def key(raw: jax.Array, step: jax.Array, stream: int) -> jax.Array:
    """A key of one stream, from the run's raw key."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(raw), step), stream)
