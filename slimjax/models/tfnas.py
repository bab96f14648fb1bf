"""TF-NAS's supernet: operators, depths and widths of inverted residuals are all chosen.

Paper: Hu, Wu and He, TF-NAS: Rethinking Three Search Freedoms of Latency-Constrained Differentiable Neural
Architecture Search, ECCV 2020, section 3 and table 1.

Groups: the expanded width of each operator of each block, "stage1/block1/k3e3"; the widths between blocks are fixed.
Choices: the operator of each block, "stage1/block1/operator", and the depth of each stage that has more than one block,
"stage1/depth". Stages 1 to 6 are the paper's 3 to 8.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.models.activation import ACTIVATIONS
from slimjax.models.inverted_residual import InvertedResidual
from slimjax.nn.choices import Choice
from slimjax.nn.heads import PoolingHead
from slimjax.nn.layers import BatchNorm, Conv, FeatureMap
from slimjax.nn.mixed import Depth, Make, Mixed
from slimjax.nn.widths import Group, Widths

Stage = tuple[int, int, int, str]
"""Most blocks, channels, stride of the first block, activation."""

STAGES: tuple[Stage, ...] = (
    (2, 24, 2, "relu"),
    (3, 40, 2, "swish"),
    (4, 80, 2, "swish"),
    (4, 112, 1, "swish"),
    (4, 192, 2, "swish"),
    (1, 320, 1, "swish"),
)

OPERATORS = ("k3e3", "k3e6", "k5e3", "k5e6", "k3e3se", "k3e6se", "k5e3se", "k5e6se")
"""Kernel, expansion, squeeze-excite; the paper's order."""

SKIP = "skip"

ROOM = {3: 4, 6: 8}
"""Most expanded channels over the input's, by the nominal expansion, which is three quarters of it. The paper begins
with the nominal one, and never has less than half of the most."""


class Site(NamedTuple):
    """Where a block is: its name and number in the network, and what is fixed about it."""

    name: str
    place: int
    inner: Group
    stride: int
    outer: Group
    activation: str


class TFNASNet(nn.Module):
    """Stem, a fixed block, stages of mixed blocks, tail.

    Args:
      stages: table 1 of the paper.
      operators: the options of a block; the last one is what the largest network has.
      sinks: each stage's depth is a choice. False: every block but a stage's first has an operator more that does
        nothing, and that is how stages get shallower (the paper's ablation).
      stem, first, tail: channels of the first convolution, of the fixed block, and of the last convolution.
      stem_stride: of the first convolution.
      drop_connect: probability with which the last block's residual branch is dropped for an image (see
        `InvertedResidual`); it rises with the block's place, from 0.
      norm, dtype: as in `CifarResNet`.
    """

    num_classes: int = 1000
    stages: tuple[Stage, ...] = STAGES
    operators: tuple[str, ...] = OPERATORS
    sinks: bool = True
    stem: int = 32
    first: int = 16
    tail: int = 1280
    stem_stride: int = 2
    drop_connect: float = 0.0
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, widths: Widths | None = None, train: bool = False) -> jax.Array:
        x = FeatureMap.of(images, widths)
        x = Conv(_fixed("stem", self.stem), stride=self.stem_stride, dtype=self.dtype, name="stem")(x)
        x = self.norm(name="stem_norm")(x, train).map(jax.nn.relu)
        first = Site("first", 0, x.group, 1, _fixed("first", self.first), "relu")
        squeeze = _fixed("first/squeeze", self.stem // 4)
        x = self._block(first, 3, hidden=None, squeeze=squeeze)(name="first")(x, train)
        place = 0
        for number, (blocks, channels, stride, activation) in enumerate(self.stages, 1):
            outer, sites = _fixed(f"stage{number}", channels), []
            for block in range(1, blocks + 1):
                inner, place = (outer if block > 1 else x.group), place + 1
                name, own = f"{outer.name}/block{block}", 1 if block > 1 else stride
                sites.append(Site(name, place, inner, own, outer, activation))
            x = self._stage(outer.name, [self._mixed(site) for site in sites])(x, train)
        x = Conv(_fixed("tail", self.tail), kernel_size=1, dtype=self.dtype, name="tail")(x)
        x = self.norm(name="tail_norm")(x, train).map(ACTIVATIONS["swish"])
        return PoolingHead(self.num_classes, self.dtype, name="head")(x)

    def _stage(self, name: str, blocks: list[Make]) -> Callable[..., FeatureMap]:
        """Blocks one after the other; how many of them is a choice where there are several, and sinks."""
        if self.sinks and len(blocks) > 1:
            depths = tuple(str(depth) for depth in range(1, len(blocks) + 1))
            return Depth(Choice(f"{name}/depth", depths), tuple(blocks), name=name)
        modules = [make(name=f"{name}_block{number}") for number, make in enumerate(blocks, 1)]
        return lambda x, train: functools.reduce(lambda y, module: module(y, train), modules, x)

    def _mixed(self, site: Site) -> Make:
        """A block whose operator is a choice."""
        # The largest network takes last options, so that doing nothing comes first.
        made: dict[str, Make] = {SKIP: Skip} if not self.sinks and site.inner == site.outer else {}
        made |= {operator: self._operator(site, operator) for operator in self.operators}
        choice = Choice(f"{site.name}/operator", tuple(made), ordered=False)
        return functools.partial(Mixed, choice, tuple(made.values()))

    def _operator(self, site: Site, operator: str) -> Make:
        kernel, expansion, squeezes = _parsed(operator)
        name, channels = f"{site.name}/{operator}", site.inner.channels
        squeezed = _fixed(f"{name}/squeeze", channels * (1 if expansion == 3 else 2)) if squeezes else None
        return self._block(site, kernel, Group(name, channels * ROOM[expansion]), squeezed)

    def _block(self, site: Site, kernel: int, hidden: Group | None, squeeze: Group | None) -> Make:
        function = ACTIVATIONS[site.activation]
        dropped = self.drop_connect * site.place / sum(blocks for blocks, *_ in self.stages)
        return functools.partial(
            InvertedResidual,
            hidden,
            site.outer,
            kernel,
            site.stride,
            function,
            squeeze,
            self.norm,
            self.dtype,
            squeeze_gate=jax.nn.sigmoid,
            squeeze_activation=function,
            drop_connect=(site.place, dropped),
        )


class Skip(nn.Module):
    """The operator that does nothing."""

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool) -> FeatureMap:
        del train
        return x


def _fixed(name: str, channels: int) -> Group:
    return Group(name, channels, fixed=True)


def _parsed(operator: str) -> tuple[int, int, bool]:
    """Kernel, expansion, whether it squeezes: "k5e6se" is (5, 6, True). Raises: UserError: it is no operator."""
    if operator not in OPERATORS:
        raise UserError(f"operators: expected some of {', '.join(OPERATORS)}, got {operator!r}.")
    return int(operator[1]), int(operator[3]), operator.endswith("se")


_A = (
    ((16, 83, 32, 3), (24, 128, 0, 5)),
    ((24, 138, 48, 3), (40, 297, 0, 3), (40, 170, 80, 5)),
    ((40, 248, 80, 5), (80, 500, 0, 3), (80, 424, 0, 3), (80, 477, 0, 3)),
    ((80, 504, 160, 3), (112, 796, 0, 3), (112, 723, 224, 3), (112, 555, 224, 3)),
    ((112, 813, 0, 3), (192, 1370, 0, 3), (192, 1138, 384, 3), (192, 1359, 384, 3)),
    ((192, 1203, 384, 5),),
)
"""By stage and block: channels of the input, expanded channels, hidden channels of the squeeze-excite, kernel."""


def _variant(stages: tuple[tuple[tuple[int, int, int, int], ...], ...]) -> dict[str, int | str]:
    """A found network, by group and choice."""
    found: dict[str, int | str] = {}
    for number, blocks in enumerate(stages, 1):
        if STAGES[number - 1][0] > 1:
            found[f"stage{number}/depth"] = str(len(blocks))
        for block, (inner, hidden, squeeze, kernel) in enumerate(blocks, 1):
            name, expansion = f"stage{number}/block{block}", 6 if hidden > ROOM[3] * inner else 3
            operator = f"k{kernel}e{expansion}" + "se" * bool(squeeze)
            found |= {f"{name}/operator": operator, f"{name}/{operator}": hidden}
    return found


VARIANTS: Mapping[str, Mapping[str, int | str]] = MappingProxyType({"A": _variant(_A)})
"""TF-NAS-A, as it is published in a backbone for face recognition; of B, C and D only costs are known."""
