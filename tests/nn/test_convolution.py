"""Packed convolutions are the plain ones, and only CPUs see them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.trees import assert_trees_close
from slimjax.nn import convolution


def arrays(channels, out, kernel=3, columns=8, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, columns, channels)), dtype)
    return x, jnp.asarray(rng.normal(size=(kernel, kernel, channels, out)), dtype)


def value_and_gradients(convolve, x, kernel):
    y, gradient = jax.vjp(convolve, x, kernel)
    return y, gradient(jnp.sin(y))


def lowered(convolve, x, kernel, platform):
    both = jax.jit(lambda x, kernel: value_and_gradients(convolve, x, kernel))
    return jax.export.export(both, platforms=[platform])(x, kernel).mlir_module()


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "columns"), [(16, 12, 3, 8), (3, 40, 3, 4), (4, 4, 5, 7)]
)
def test_packed_equals_plain_with_gradients(channels, out, kernel, columns):
    with jax.enable_x64(True):
        x, weights = arrays(channels, out, kernel, columns)
        packed = value_and_gradients(convolution.convolve, x, weights)
        plain = value_and_gradients(convolution._plain, x, weights)
        assert_trees_close(packed, plain, "float64")


def test_narrow_convolutions_are_packed_on_cpus():
    text = lowered(convolution.convolve, *arrays(16, 16, dtype=jnp.float32), "cpu")
    assert text.count("stride = [1, 2]") == 2  # the value, and the gradient of the input


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_get_the_plain_convolution(platform):
    x, kernel = arrays(16, 16, dtype=jnp.float32)
    packable = lowered(convolution.convolve, x, kernel, platform)
    plain = lowered(convolution._plain, x, kernel, platform)
    for text in (packable, plain):
        assert text.count("stablehlo.convolution(") == 3
        assert "stride = [1, 2]" not in text


@pytest.mark.parametrize(
    ("channels", "out", "stride", "groups"),
    [
        (64, 64, 1, 1),
        (20, 20, 1, 1),
        (11, 11, 1, 1),
        (16, 15, 1, 1),
        (16, 16, 2, 1),
        (16, 16, 1, 16),
        (16, 16, 1, 4),
    ],
)
def test_wide_uneven_strided_and_grouped_convolutions_are_plain(channels, out, stride, groups):
    x, kernel = arrays(channels // groups, out, dtype=jnp.float32)
    x = jnp.tile(x, (1, 1, 1, groups))
    trace = jax.make_jaxpr(lambda x, kernel: convolution.convolve(x, kernel, stride, groups))(x, kernel)
    assert [str(equation.primitive) for equation in trace.eqns] == ["conv_general_dilated"]
