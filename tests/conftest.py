"""Eight virtual CPU devices; rank promotion raises; warnings are errors (pyproject.toml)."""

import os

# Before JAX is imported. The last two flags halve compile time; they do not change what is computed.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
pytest.register_assert_rewrite("helpers")  # their assertions show values as those of test files do


@pytest.fixture
def images():
    """float32 [8, 8, 8, 3], standard normal."""
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
