"""What is scored: an engine, its state, a batch, and subnets."""

import dataclasses

import jax
import numpy as np

from helpers.engines import batches, engine_of
from slimjax import sharding
from slimjax.step.slots import Slot

SLOTS = (Slot("max", stats="max"),)


def random_subnets(engine, count, seed=0):
    """Every group's channels on their own, from its legal ones."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(engine.net.space.legal(g), count) for g in engine.net.space.groups], -1)


def related_subnets(engine, count, seed=0):
    """The same, but few differ in their first groups: with programs to spare, networks are divided twice."""
    rows = random_subnets(engine, count, seed)
    rng = np.random.default_rng(seed)
    rows[:, 0] = 3
    for column, choices in ((1, 2), (2, 3), (3, 2)):
        rows[:, column] = rows[rng.integers(0, choices, count), column]
    return rows


def make(draws=12, seed=0, **options):
    """A scorer of few programs, its state, a batch, and subnets other than those that its rungs were chosen for."""
    engine = engine_of(**{"policy": "auto", "max_programs": 5, **options})
    batch = sharding.put_batch(engine.mesh, next(batches(1)))
    return engine, decided(engine), batch, random_subnets(engine, draws, seed)


def decided(engine):
    """A state whose classifier is not near zero: losses of different subnets differ by more than rounding."""
    state = engine.init(0, SLOTS)
    head = jax.tree.map(lambda x: 100 * x, state.params["head"])
    return sharding.put_replicated(
        engine.mesh, dataclasses.replace(state, params={**state.params, "head": head})
    )


def two_processes():
    """The same as `make(5)`, each process with its half of the batch."""
    engine = engine_of(policy="masked", max_programs=5, devices=2)
    half = 8 * jax.process_index()
    rows = {name: value[half : half + 8] for name, value in next(batches(1)).items()}
    return engine, decided(engine), sharding.put_batch(engine.mesh, rows), random_subnets(engine, 5)
