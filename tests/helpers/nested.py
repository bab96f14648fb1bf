"""A small space whose choices depend on each other, with a cost and an error that can be enumerated."""

import itertools

import numpy as np

from slimjax.nn.choices import Choice, When
from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.encoding import Encoding

DEPTH = Choice("depth", ("1", "2", "3"))
FIRST = Choice("first", ("plain", "wide", "skip"), ordered=False)
SECOND = Choice("second", ("plain", "wide", "skip", "pool"), ordered=False)
SIDE = Choice("side", ("3", "5"))
"""Of the second operator's kernel, where it is wide."""

DEEP = When(DEPTH, (1, 2))
SPACE = Space(
    (Group("stem", 16), Group("first/wide", 32), Group("second/wide", 32)),
    Rounding("multiple", 4),
    min_width=0.25,
    choices=(DEPTH, FIRST, SECOND, SIDE),
    under={
        "first/wide": ((When(FIRST, (1,)),),),
        "second": ((DEEP,),),
        "second/wide": ((DEEP, When(SECOND, (1,))),),
        "side": ((DEEP, When(SECOND, (1,))),),
    },
)
LOW = SPACE.min_width


def encoding(space=SPACE):
    sizes = tuple(map(len, space.choices))
    ordered = tuple(choice.ordered for choice in space.choices)
    return Encoding(len(space.groups), sizes, ordered, space.min_width, space.exists)


def subnets(fractions):
    return SPACE.layerwise(np.clip(fractions, LOW, 1))


def parts(rows):
    rows = np.asarray(rows)
    return (rows * SPACE.exists(rows)).astype(float), SPACE.exists(rows)


def cost(rows):
    """Whether it rises with the options' order or not: a skip is the cheapest operator, and comes late."""
    n, exists = parts(rows)
    operators = np.array([4.0, 1.0, 0.0])[np.asarray(rows)[..., 4]]
    second = exists[..., 5] * np.array([4.0, 1.0, 0.0, 2.0])[np.asarray(rows)[..., 5]]
    return n[..., 0] + n[..., 1] + n[..., 2] * (1 + n[..., 6]) + operators + second + 3 * n[..., 3] + 5


def error(rows):
    n, exists = parts(rows)
    gain = 0.1 * np.log1p(n[..., :3]).sum(-1)
    table = np.array([0.3, 0.0, 0.9])[np.asarray(rows)[..., 4]]
    second = exists[..., 5] * np.array([0.2, 0.1, 0.4, -0.3])[np.asarray(rows)[..., 5]]
    return 2 - gain + table + second - 0.2 * n[..., 3] - 0.1 * n[..., 6]


def everything():
    """All different subnets, int32 [N, G]."""
    rows = np.array(list(itertools.product(*(SPACE.legal(axis) for axis in SPACE.axes))), np.int32)
    return np.unique(SPACE.canonical(rows), axis=0)
