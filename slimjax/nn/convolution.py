"""Convolution over images, and what makes narrow ones quick on CPUs.

XLA's CPU convolution copies every window into a row of a matrix and multiplies. With few output channels
the copying dominates: 16 channels run at half the speed of 64, four at a tenth. So on CPUs a narrow
convolution computes several neighbouring pixels as one window with as many times the output channels. It
multiplies some zeros and copies less. Other devices, wide or uneven layers and strides get the plain one,
and so does a network that is to be exported (`Widths.portable`): a traced program holds both forms.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

ENOUGH = 32
"""Output channels from which packing pixels gains nothing (measured with 4 to 64 channels)."""

NARROW = 16
"""Most channels of an input or output that make packing pay (measured in residual blocks, 5 to 64 channels)."""

EVEN = 4
"""Packed rows of other counts than its multiples cannot be read in whole vectors: twice as slow as no packing."""

MOST = 4
"""Pixels that are computed as one, at most: k + 3 columns of a window instead of k for each."""


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1, portable: bool = False
) -> jax.Array:
    """Convolution of images [B, H, W, C] with [k, k, C / groups, D], zero-padded by k // 2 on every side.

    Where it may be packed its gradient is its own, so it has a reverse mode but no forward mode (`jvp`). It never
    is if it is `portable`: one primitive, whatever the platform.
    """
    narrow = min(kernel.shape[2:]) <= NARROW and not any(n % EVEN for n in kernel.shape[2:] if n > EVEN)
    packs = not portable and groups == stride == 1 and kernel.shape[0] in (3, 5, 7) and narrow
    return _packable(x, kernel) if packs else _plain(x, kernel, stride, groups)


def dense_kernel(kernel: jax.Array, groups: int, shuffled: bool = False) -> jax.Array:
    """The kernel [k, k, C, D] of the ungrouped convolution that equals an interleaved grouped one.

    Input and output channels c belong to group c mod `groups`. Kernel entry [i, d] meets input channel
    `groups * i + j` for the one j that is in the group of output d; all others meet a zero. With `shuffled`,
    input channels change groups by a fixed permutation within each `groups` neighbours: those of the i-th
    move on by i groups, so every group receives channels of all former groups.

    This runs `groups` times the multiplications that costs count, most of them by zero. It is still quicker
    than to gather the channels of each group: with 3 groups and ShuffleNet's sizes the TPU v5e compiler
    estimates 0.3 to 0.7 of the cycles that `feature_group_count` needs. Many groups would want another way.

    Args:
      kernel: [k, k, C / groups, D].
    """
    if groups == 1:
        return kernel
    inputs, outputs = kernel.shape[2] * groups, kernel.shape[3]
    channels = jnp.arange(inputs)
    group = (channels + channels // groups if shuffled else channels) % groups
    meets = group[:, None] == (jnp.arange(outputs) % groups)[None]
    return jnp.where(meets[None, None], jnp.repeat(kernel, groups, 2), jnp.zeros((), kernel.dtype))


def _plain(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    pad = kernel.shape[0] // 2
    return _window(x, kernel, (stride, stride), pad, groups)


def _window(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pad: int, groups: int = 1
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=[(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _packed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same with `pixels` neighbours of a row as one window: shifted copies of the kernel, side by side."""
    pixels = _pixels(x.shape[2], kernel.shape[3])
    shifted = [jnp.pad(kernel, [(0, 0), (i, pixels - 1 - i), (0, 0), (0, 0)]) for i in range(pixels)]
    y = _window(x, jnp.concatenate(shifted, -1), (1, pixels), kernel.shape[0] // 2)
    return y.reshape(*x.shape[:3], kernel.shape[3])


def _pixels(columns: int, channels: int) -> int:
    """How many pixels make `channels` enough: a power of two that divides the columns."""
    pixels = 1
    while pixels < MOST and channels * pixels < ENOUGH and columns % (2 * pixels) == 0:
        pixels *= 2
    return pixels


@jax.custom_vjp
def _packable(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(x, kernel, cpu=_packed, default=_plain)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _packable(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradient of the input is a convolution too, with as many output as `x` has channels."""
    x, kernel = saved
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    to_x = jax.lax.platform_dependent(
        g,
        turned,
        cpu=_packed,
        default=lambda g, _: jax.linear_transpose(lambda x: _plain(x, kernel), x)(g)[0],
    )
    (to_kernel,) = jax.linear_transpose(functools.partial(_plain, x), kernel)(g)
    return to_x, to_kernel


_packable.defvjp(_forward, _backward)
