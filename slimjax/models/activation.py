"""Activations that a network's options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import jax

Activation = Literal["relu", "relu6", "swish"]

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {"relu": jax.nn.relu, "relu6": jax.nn.relu6, "swish": jax.nn.silu}
)
