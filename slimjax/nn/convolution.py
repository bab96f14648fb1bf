"""Convolution over images, and what makes narrow ones quick on CPUs.

XLA's CPU convolution copies every window into a row of a matrix and multiplies. With few output channels
the copying dominates: 16 channels run at half the speed of 64, four at a tenth. So on CPUs a narrow
convolution computes several neighbouring pixels as one window with as many times the output channels. It
multiplies some zeros and copies less. Other devices, wide or uneven layers and strides get the plain one,
and so does a network that is to be exported (`Widths.portable`): a traced program holds both forms.

XLA brings convolutions into the form that its CPU library knows in a program's main part only. In a branch of a switch
the gradients, which are convolutions of other forms, run 25 to 90 times slower. So there they are written in that form
(`Widths.in_branch`).
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
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    groups: int = 1,
    portable: bool = False,
    in_branch: bool = False,
) -> jax.Array:
    """Convolution of images [B, H, W, C] with [k, k, C / groups, D], zero-padded by k // 2 on every side.

    Where it may be packed its gradient is its own, so it has a reverse mode but no forward mode (`jvp`). It never
    is if it is `portable`: one primitive, whatever the platform. The same holds `in_branch` of a switch.
    """
    if in_branch and not portable:
        return _branched(x, kernel, stride, groups)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _branched(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
    """A plain convolution whose gradients are quick in a branch on CPUs, too."""
    plain = functools.partial(_plain, stride=stride, groups=groups)
    if kernel.shape[:2] != (1, 1) or stride > 1 or groups > 1:
        return plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=lambda x, kernel: x @ kernel[0, 0], default=plain)


def _branched_forward(
    x: jax.Array, kernel: jax.Array, stride: int, groups: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _branched(x, kernel, stride, groups), (x, kernel)


def _branched_backward(
    stride: int, groups: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    plain = functools.partial(_plain, stride=stride, groups=groups)

    def transposed(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        (to_x,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(g)
        (to_kernel,) = jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(g)
        return to_x, to_kernel

    canonical = functools.partial(_canonical_gradients, stride, groups)
    return jax.lax.platform_dependent(*saved, g, cpu=canonical, default=transposed)


_branched.defvjp(_branched_forward, _branched_backward)


def _canonical_gradients(
    stride: int, groups: int, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """By the input and by the kernel: products, and convolutions of NHWC with HWIO that flip nothing."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    if size == stride == groups == 1:
        rows = g.reshape(-1, g.shape[-1])
        return g @ kernel[0, 0].T, (x.reshape(-1, x.shape[-1]).T @ rows)[None, None]
    spans = [(side - 1) * stride + 1 for side in g.shape[1:3]]  # of g, with stride - 1 zeros in between
    rest = [side - span for side, span in zip(x.shape[1:3], spans, strict=True)]
    turned = kernel[::-1, ::-1] if groups > 1 else kernel[::-1, ::-1].swapaxes(2, 3)
    around = [(size - 1 - pad, pad + more) for more in rest]
    to_x = _canonical(g, turned, around, groups, spread=stride)
    if groups > 1:
        return to_x, _depthwise_kernel_gradient(x, g, size, stride, spans)
    around = [(pad, size - 1 - pad - more) for more in rest]
    by_channel = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    to_kernel = _canonical(*by_channel, around, kernel_spread=stride)
    return to_x, to_kernel.transpose(1, 2, 0, 3)


def _depthwise_kernel_gradient(
    x: jax.Array, g: jax.Array, size: int, stride: int, spans: list[int]
) -> jax.Array:
    """[k, k, 1, C]: for each place in the kernel the sum of what meets there."""
    pad, (high, wide) = size // 2, spans
    x = jnp.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    meets = lambda i, j: x[:, i : i + high : stride, j : j + wide : stride]  # noqa: E731
    rows = [[(meets(i, j) * g).sum((0, 1, 2)) for j in range(size)] for i in range(size)]
    return jnp.stack([jnp.stack(row) for row in rows])[:, :, None]


def _canonical(
    x: jax.Array,
    kernel: jax.Array,
    padding: list[tuple[int, int]],
    groups: int = 1,
    spread: int = 1,
    kernel_spread: int = 1,
) -> jax.Array:
    """A convolution of stride 1, with `spread - 1` zeros between the pixels, and so in the kernel."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        lhs_dilation=(spread, spread),
        rhs_dilation=(kernel_spread, kernel_spread),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
