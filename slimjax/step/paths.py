"""Paths: the options that the devices draw for a step's subnets, from structure parameters.

Only what is drawn leaves the program, so that no path compiles anything and no step waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp

from slimjax.nn.arrays import CHOICES
from slimjax.nn.space import Space
from slimjax.sharding import REPLICATED
from slimjax.step import streams
from slimjax.step.engine import Engine
from slimjax.step.state import Tree

Draw = Callable[[Tree, jax.Array, jax.Array], jax.Array]
"""(structure parameters, key, subnets int32 [R, G]) -> subnets int32 [R, G] with other options."""

Pick = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits [options] of one choice, key) -> a position; options that are switched off have a logit of -infinity."""


def draw_program(engine: Engine, draw: Draw) -> jax.stages.Wrapped:
    """The jitted `(structure parameters, raw key, step, subnets [R, G]) -> R rows [G]`, alike on all devices."""

    def rows(structure: Tree, raw: jax.Array, step: jax.Array, subnets: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(draw(structure, streams.key(raw, step, streams.PATHS), subnets))

    return jax.jit(rows, out_shardings=jax.NamedSharding(engine.mesh, REPLICATED))


def gumbel(logits: jax.Array, key: jax.Array) -> jax.Array:
    """By the probabilities: the largest of logits with Gumbel noise, which no temperature changes."""
    return jnp.argmax(logits + jax.random.gumbel(key, logits.shape))


def uniform(logits: jax.Array, key: jax.Array) -> jax.Array:
    """Each with the same probability."""
    return gumbel(jnp.where(jnp.isfinite(logits), 0.0, logits), key)


def most_likely(logits: jax.Array, key: jax.Array) -> jax.Array:
    """The one of the largest logit."""
    del key
    return jnp.argmax(logits)


def least_likely(logits: jax.Array, key: jax.Array) -> jax.Array:
    """The one of the smallest logit."""
    del key
    return jnp.argmin(jnp.where(jnp.isfinite(logits), logits, jnp.inf))


SECOND: Mapping[str, Pick] = MappingProxyType(
    {"random": uniform, "gumbel": gumbel, "max": most_likely, "min": least_likely}
)
"""How bi-sampling picks the second path."""


def bisampled(space: Space, names: Sequence[str], second: str = "random") -> Draw:
    """The first row's options of the named choices by their probabilities; other rows' among those that remain.

    What the rows before have taken is switched off, in each choice on its own. Other entries stay as they are.

    Paper: Hu et al., TF-NAS, ECCV 2020, section 3.2 (bi-sampling: a Gumbel path and a random one).

    Args:
      second: of `SECOND`.
    """

    def draw(structure: Tree, key: jax.Array, subnets: jax.Array) -> jax.Array:
        for number, name in enumerate(names):
            logits, column = structure[CHOICES][name], space.index[name]
            for row in range(len(subnets)):
                pick = SECOND[second] if row else gumbel
                place = jax.random.fold_in(jax.random.fold_in(key, number), row)
                option = pick(logits, place)
                logits = logits.at[option].set(-jnp.inf)
                subnets = subnets.at[row, column].set(option.astype(subnets.dtype))
        return subnets

    return draw
