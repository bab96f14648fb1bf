"""What two results that must agree are held to."""

import chex
import jax
import numpy as np

TOLERANCE = {
    "float64": {"rtol": 1e-9, "atol": 1e-10},
    "float32": {"rtol": 2e-4, "atol": 2e-5},
    "training": {"rtol": 5e-3, "atol": 1e-4},  # float32, after some steps: rounding has grown
    "bfloat16": {"rtol": 5e-2, "atol": 5e-2},
}
"""The one table of tolerances, by dtype, for results that must agree up to rounding."""


def assert_trees_close(actual, expected, dtype: str = "float32") -> None:
    """Same structure and shapes, and leaves equal up to rounding, relative to the size of the leaf."""
    actual, expected = (jax.tree.map(np.asarray, tree) for tree in (actual, expected))
    chex.assert_trees_all_equal_shapes(actual, expected)
    paths = jax.tree_util.tree_flatten_with_path(expected)[0]
    for (path, want), got in zip(paths, jax.tree.leaves(actual), strict=True):
        tolerance = TOLERANCE[dtype]
        scale = max(1e-6, float(np.abs(want).max(initial=0)))
        error = float(np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64)).max(initial=0))
        limit = tolerance["atol"] + tolerance["rtol"] * scale
        assert error <= limit, f"{jax.tree_util.keystr(path)}: {error:.3g} > {limit:.3g}"


def assert_trees_equal(actual, expected) -> None:
    """Same structure, shapes and dtypes, and every leaf equal bit for bit (0.0 is not -0.0, a NaN is itself)."""
    actual, expected = (jax.tree.map(np.asarray, tree) for tree in (actual, expected))
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_equal(jax.tree.map(_bytes, actual), jax.tree.map(_bytes, expected))


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)
