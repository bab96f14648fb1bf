"""Eight virtual CPU devices; rank promotion raises; warnings are errors (pyproject.toml)."""

import gc
import importlib.util
import os

from helpers.flags import EIGHT, EIGHT_DEVICES

# Before JAX is imported.
os.environ["XLA_FLAGS"] = EIGHT_DEVICES
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

if importlib.util.find_spec("libtpu"):
    jax.devices()  # the CPU has read its flags
    os.environ["XLA_FLAGS"] = EIGHT
jax.config.update("jax_numpy_rank_promotion", "raise")
pytest.register_assert_rewrite("helpers.trees")  # its assertions show values as those of test files do


def pytest_collection_finish():
    """What the imports made stays. To look for garbage among it, and often, takes a fifth of the time of a trace."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture
def images():
    """float32 [8, 8, 8, 3], standard normal."""
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
