"""A small network with every kind of choice, and any path of it written out without choices."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from slimjax.models.inverted_residual import InvertedResidual
from slimjax.nn.choices import Choice, Gate, Window
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.mixed import Depth, Mixed
from slimjax.nn.widths import Group, Rounding, Widths
from slimjax.supernet import Supernet

BODY = Group("body", 4)
OPERATORS = {"small": (4, 3), "large": (6, 5)}
"""Hidden channels and kernel size."""

WINDOW = Window(Choice("kernel", ("3", "5")), (3, 5))

Path = tuple[int, tuple[str, ...], int]
"""Number of blocks, operator of each, side of the last block's kernel."""

PATHS: tuple[Path, ...] = (
    (1, ("large",), 3),
    (3, ("small", "large", "small"), 5),
    (2, ("large", "small"), 3),
)

CHANNELS = {
    "body": 3,
    "block1/small": 2,
    "block1/large": 5,
    "block2/large": 4,
    "block2/small": 3,
    "block3/small": 3,
    "elastic": 4,
}
"""Fewer than all of most groups; those of operators that a path lacks do not matter."""


def block(name: str, hidden: int, kernel_size: int, dtype: Any, window: Window | None = None):
    """A constructor of an inverted residual of the body, with an activation that has no kinks."""
    return functools.partial(
        InvertedResidual,
        Group(name, hidden),
        BODY,
        kernel_size,
        1,
        jnp.tanh,
        None,
        BatchNorm,
        dtype,
        window=window,
    )


class Choosing(nn.Module):
    """Stem; one, two or three blocks of one of two operators; a block with a kernel of side 3 or 5; classifier."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        x = Conv(BODY, stride=2, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = BatchNorm(name="norm")(x, train).map(jnp.tanh)
        blocks = tuple(self._mixed(f"block{number}") for number in (1, 2, 3))
        x = Depth(Choice("depth", ("1", "2", "3")), blocks, name="stage")(x, train)
        x = block("elastic", 6, 5, self.dtype, WINDOW)(name="elastic")(x, train)
        return PoolingHead(5, self.dtype, name="head")(x)

    def _mixed(self, name):
        made = tuple(block(f"{name}/{op}", *sizes, self.dtype) for op, sizes in OPERATORS.items())
        return functools.partial(Mixed, Choice(f"{name}/operator", tuple(OPERATORS), ordered=False), made)


class Written(nn.Module):
    """The same with the choices made."""

    chosen: Path
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        depth, operators, side = self.chosen
        x = Conv(BODY, stride=2, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = BatchNorm(name="norm")(x, train).map(jnp.tanh)
        for number, op in enumerate(operators[:depth], 1):
            name = f"block{number}"
            x = block(f"{name}/{op}", *OPERATORS[op], self.dtype)(name=name)(x, train)
        x = block("elastic", 6, side, self.dtype)(name="elastic")(x, train)
        return PoolingHead(5, self.dtype, name="head")(x)


@functools.cache
def choosing() -> Supernet:
    return Supernet(Choosing(), (8, 8, 3), Rounding("truncate"), 0.5)


@functools.cache
def written(path: Path) -> Supernet:
    return dataclasses.replace(choosing(), model=Written(path))


def options_of(path: Path) -> dict[str, int | str]:
    """The options of a path, by choice."""
    depth, operators, side = path
    chosen = {f"block{number}/operator": op for number, op in enumerate(operators, 1)}
    return {"depth": str(depth), "kernel": str(side), **chosen}


def narrowed(path: Path, channels: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Subnets of both networks: the path with some channels, of which the groups that it lacks are left out."""
    own = written(path).space
    kept = {name: count for name, count in channels.items() if name in own.index}
    return choosing().space.from_channels({**kept, **options_of(path)}), own.from_channels(kept)


def picked(tree: Any, path: Path) -> Any:
    """The path's part of a collection of the network with choices, as the written network has it."""
    found = {name: part for name, part in tree.items() if name != "stage"}
    for number, op in enumerate(path[1], 1):
        found[f"block{number}"] = tree["stage"][f"block_{number}"][f"op_{op}"]
    if path[2] == 3 and "depthwise_kernel" in found["elastic"].get("depthwise", {}):
        kernel = found["elastic"]["depthwise"]["depthwise_kernel"][1:4, 1:4]
        found["elastic"] = {**found["elastic"], "depthwise": {"depthwise_kernel": kernel}}
    return found


def soft(weights: Mapping[str, Any]) -> Widths:
    """Full channels, and choices with these weights over their options."""
    return Widths(gates={name: Gate(len(w) - 1, weights=jnp.asarray(w)) for name, w in weights.items()})


def one_hot(path: Path) -> dict[str, np.ndarray]:
    """Weights of the path; blocks that it lacks have their first operator."""
    chosen = options_of(path)
    return {
        choice.name: np.eye(len(choice))[choice.position(str(chosen.get(choice.name, choice.options[0])))]
        for choice in choosing().space.choices
    }
