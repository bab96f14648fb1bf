"""How much each part of a network counts: 0 or 1 in a subnet, a share of the weights in a soft mixture of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.nn.choices import Under, When
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
        shares = []
        for choice in self.space.choices:
            places = np.arange(len(choice)).reshape((1,) * (subnets.ndim - 1) + (-1,))
            chosen = subnets[..., self.space.index[choice.name], None] == places
            share = given.get(choice.name, chosen.astype(float))
            shares.append(numpy.broadcast_to(share, (*subnets.shape[:-1], len(choice))))
        everything = numpy.ones((*subnets.shape[:-1], 1))
        # Accelerators multiply matrices in less than float32 unless they are told otherwise.
        dot = functools.partial(jnp.dot, precision="highest") if traced else np.dot
        parts = [dot(numpy.concatenate(shares, -1), self._allowed)] if self._whens else []
        met = numpy.concatenate([*parts, everything], -1)
        return met[..., self._places].prod(-1)

    @functools.cached_property
    def _whens(self) -> list[When]:
        return list(dict.fromkeys(when for under in self.unders for when in under))

    @functools.cached_property
    def _allowed(self) -> np.ndarray:
        """[options of all choices, single conditions]: 1 where an option meets a condition."""
        columns = []
        for wanted, options in self._whens:
            rows = [np.isin(np.arange(len(c)), options) & (c == wanted) for c in self.space.choices]
            columns.append(np.concatenate(rows).astype(float))
        return np.stack(columns, -1)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """int [K, most conditions at once]: positions of single ones, filled up with that of what always holds."""
        place = {when: i for i, when in enumerate(self._whens)}
        rows = np.full((len(self), max([1, *map(len, self.unders)])), len(place))
        for row, under in zip(rows, self.unders, strict=True):
            row[: len(under)] = [place[when] for when in under]
        return rows
