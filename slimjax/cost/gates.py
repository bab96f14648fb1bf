"""How much each part of a network counts: 0 or 1 in a subnet, a share of the weights in a soft mixture of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.nn.choices import Choice, Under, When
from slimjax.nn.space import Space

Weights = Mapping[str, Any]
"""Weights [..., options] by the names of choices."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gates:
    """A function of subnets [..., G], and perhaps of weights: what counts of each of K conditions, [..., K].

    Weights of an option are the probability that the choice takes it, independently of all others; so a linear
    cost of a mixture is the expected cost of a subnet that is drawn with these probabilities.

    Paper: Hu et al., TF-NAS, ECCV 2020, equations 6 and 7 (the latency of a mixture).

    Args:
      unders: the conditions, without repetition.
    """

    space: Space
    unders: tuple[Under, ...]

    @classmethod
    def of(cls, space: Space, unders: Sequence[Under]) -> Gates:
        return cls(space, tuple(dict.fromkeys(unders)))

    def __len__(self) -> int:
        return len(self.unders)

    def __call__(self, subnets: Any, weights: Weights | None = None) -> Any:
        """Subnets [..., G] as floats. Choices that have no weights take the subnets' options."""
        given = weights or {}
        traced = isinstance(subnets, jax.Array) or any(isinstance(w, jax.Array) for w in given.values())
        numpy: Any = jnp if traced else np
        # Accelerators multiply matrices in less than float32 unless they are told otherwise.
        dot = functools.partial(jnp.dot, precision="highest") if traced else np.dot
        met = [numpy.ones((*subnets.shape[:-1], 1))]
        for choice, allowed in self._allowed:
            table = numpy.asarray(allowed)
            if choice.name in given:
                own = dot(numpy.asarray(given[choice.name]), table)
            else:
                own = table[subnets[..., self.space.index[choice.name]].astype(int)]
            met.append(numpy.broadcast_to(own, (*subnets.shape[:-1], table.shape[-1])))
        return numpy.concatenate(met, -1)[..., self._places].prod(-1)

    @functools.cached_property
    def _whens(self) -> dict[Choice, list[When]]:
        """Single conditions on each choice that has any."""
        distinct = dict.fromkeys(when for under in self.unders for when in under)
        found = {
            choice: [when for when in distinct if when.choice == choice] for choice in self.space.choices
        }
        return {choice: whens for choice, whens in found.items() if whens}

    @functools.cached_property
    def _allowed(self) -> list[tuple[Choice, np.ndarray]]:
        """[options, single conditions on the choice]: 1 where an option meets a condition."""
        return [
            (choice, np.stack([np.isin(np.arange(len(choice)), w.options) for w in whens], -1).astype(float))
            for choice, whens in self._whens.items()
        ]

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """int [K, most conditions at once]: positions of single ones, filled up with 0, that of what always holds."""
        place = {when: i for i, when in enumerate(itertools.chain(*self._whens.values()), 1)}
        rows = np.zeros((len(self), max([1, *map(len, self.unders)])), int)
        for row, under in zip(rows, self.unders, strict=True):
            row[: len(under)] = [place[when] for when in under]
        return rows
