"""A small engine, batches for it, and what can be run on both."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from helpers.nets import named
from slimjax import sharding
from slimjax.step.engine import Engine
from slimjax.step.optimizers import Updates, sgd
from slimjax.supernet import Supernet


@functools.cache
def small_net(min_width: float) -> Supernet:
    return dataclasses.replace(named("resnet8", channels=(4, 8, 8)), min_width=min_width)


@functools.cache
def engine_of(
    min_width=0.25, lr=0.1, decay=1e-4, momentum=0.9, devices=1, policy="masked", **options
) -> Engine:
    net = small_net(min_width)
    optimizer = sgd(lambda step: lr, momentum=momentum, weight_decay=decay)
    plain = lambda images: images.astype(jnp.float32) / 255  # noqa: E731
    mesh = sharding.make_mesh(devices)
    return Engine(
        net, optimizer, lambda key, images: plain(images), plain, mesh=mesh, policy=policy, **options
    )


def in_run(engine: Engine, steps: int) -> Engine:
    """The engine of a run of so many updates, at a constant rate."""
    constant = lambda count: lambda step: 0.1  # noqa: E731
    return dataclasses.replace(engine, updates=Updates(steps, constant, sgd))


def batches(count, size=16):
    rng = np.random.default_rng(5)
    for _ in range(count):
        images = rng.integers(0, 256, (size, 8, 8, 3), np.uint8)
        yield {"image": images, "label": rng.integers(0, 5, size).astype(np.int32)}


def trained(algorithm, steps=3, data=None, seed=0):
    state = algorithm.init(seed)
    for step, batch in enumerate(data or batches(steps)):
        state = algorithm.revise(state, step, lambda subnets: 1 / subnets.sum(-1))
        state, _ = algorithm.turn(step).step(state, batch, algorithm.propose(state.algorithm, step))
    return state


def states(algorithm, steps, score=None):
    """The state before each step, as it is revised, and after the last, on the host."""
    state, found = algorithm.init(0), []
    for step, batch in enumerate(batches(steps)):
        state = algorithm.revise(state, step, score)
        found.append(jax.tree.map(np.asarray, state))
        state, _ = algorithm.turn(step).step(state, batch, algorithm.propose(state.algorithm, step))
    return [*found, jax.tree.map(np.asarray, state)]
