"""The smallest supernet that TF-NAS can search, an engine of a run for it, and the paths of a step."""

import dataclasses
import functools

import jax
import numpy as np

from helpers.engines import engine_of
from helpers.nets import named
from slimjax.nn.arrays import CHOICES
from slimjax.nn.layers import BatchNorm
from slimjax.step import paths
from slimjax.step.optimizers import Updates, sgd
from slimjax.supernet import Supernet

OPTIONS = {
    "stages": ((2, 4, 1, "relu"), (1, 6, 2, "swish")),
    "operators": ("k3e3", "k5e3", "k3e6"),
    "stem": 4,
    "first": 4,
    "tail": 8,
    "stem_stride": 1,
}
"""A stage of one or two blocks, one of one block: three choices among three operators, and a depth."""

OVERRIDES = tuple(f"--config.model.options.{name}={value!r}" for name, value in OPTIONS.items())
"""Of a config of TF-NAS."""


@functools.cache
def tiny_net() -> Supernet:
    """Norms without gammas and betas, as the recipe has them."""
    net = named("tfnas", **OPTIONS)
    return dataclasses.replace(net, model=net.model.clone(norm=functools.partial(BatchNorm, affine=False)))


def searching(steps=24, devices=1, schedule=lambda count: lambda step: 0.1, net=None, **sgd_options):
    """The engine of a run of so many updates on it."""
    optimizer = functools.partial(sgd, nesterov=False, **{"weight_decay": 1e-5} | sgd_options)
    return dataclasses.replace(
        engine_of(devices=devices), net=net or tiny_net(), updates=Updates(steps, schedule, optimizer)
    )


def uneven(space, seed=0):
    """Structure parameters far from even: logarithms of probabilities."""
    rng = np.random.default_rng(seed)
    drawn = {c.name: rng.normal(size=len(c)).astype(np.float32) for c in space.choices}
    return {CHOICES: {name: np.asarray(jax.nn.log_softmax(row)) for name, row in drawn.items()}}


def drawn_paths(step, state, subnets):
    """int32 [R, G]: the subnets that a step runs in this state."""
    rows = _program(step)(state.structure, state.key, state.step, np.asarray(subnets, np.int32))
    return np.array(rows)


@functools.cache
def _program(step):
    return paths.draw_program(step.engine, step.draw)
