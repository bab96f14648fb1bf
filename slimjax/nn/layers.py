"""Layers whose channels can be narrowed at run time.

There is one code path. Every layer cuts its arrays to the static sizes of its groups, then masks them to
the active counts where there are any; so masked, bucketed and sliced subnets run the same lines. Entries
outside a subnet are cut away or replaced by zero *before* any arithmetic: they cannot change a result,
even if they hold NaN, and their gradient is exactly zero.

Activations carry their group (`FeatureMap`), so that adding two groups that are not tied is an error when
the network is traced, not a wrong result later.

Variables live in three collections: `params` (kernels and biases), `affine` (gamma and beta of the
norms, apart because switchable batch norm keeps one set per switch) and `batch_stats`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.choices import Window
from slimjax.nn.convolution import convolve, dense_kernel
from slimjax.nn.feature_map import Axis, FeatureMap, full_length, mask_axis, narrow, static_length
from slimjax.nn.moments import moments
from slimjax.nn.switch import saved
from slimjax.nn.widths import Group

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]


class Layer(nn.Module):
    """Base of what a forward pass is written down as (`trace.trace`): feature maps in, one feature map out.

    `in_place`: elementwise, so the result can take the storage of the first argument.
    `by_position`: channel c of the argument becomes channel c of the result, in another group.
    """

    in_place: ClassVar[bool] = False
    by_position: ClassVar[bool] = False


class PadShortcut(Layer):
    """Parameter-free shortcut into another group: subsample, then zero-pad (or drop) trailing channels.

    Paper: He et al. 2016, option A. Differs: the zeros all come last, so that subnets stay leading slices.
    """

    by_position: ClassVar[bool] = True

    group: Group
    stride: int = 1

    def __call__(self, x: FeatureMap) -> FeatureMap:
        width = x.width_of(self.group)
        value = x.value[:, :: self.stride, :: self.stride, : width.size]
        value = jnp.pad(value, [(0, 0)] * 3 + [(0, width.size - value.shape[-1])])
        return x.with_value(mask_axis(value, width, -1), self.group)


class Concatenate(Layer):
    """The channels of two maps, whose axes must be multiples a and b of one group: a + b times that group.

    Differs: from putting one behind the other, by the order. For each channel of the group come `a` of the
    first, then `b` of the second, so that leading slices of both are together a leading slice of the result.
    """

    def __call__(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        if x.group.base != y.group.base:
            raise TypeError(
                f"cannot concatenate feature maps of different groups: {x.group.name!r} and {y.group.name!r}. "
                "Give both a multiple of one group (Group.times)."
            )
        size = x.width_of(x.group.base).size
        parts = [z.value.reshape(*z.value.shape[:-1], size, -1) for z in (x, y)]
        value = jnp.concatenate(parts, -1).reshape(*x.value.shape[:-1], -1)
        return x.with_value(value, x.group.base.times(x.group.ratio + y.group.ratio))


class SlimLayer(Layer):
    """Base of the layers that own arrays: declare at full size, use at the size of the subnet."""

    def declare(
        self, name: str, init: Initializer, axes: Sequence[Axis], collection: str = "params"
    ) -> nn.Variable:
        """A variable whose full shape is `axes`. `trace.trace` listens to these calls."""
        shape = tuple(map(full_length, axes))
        return self.variable(
            collection, name, lambda: init(self.make_rng("params"), shape).astype(jnp.float32)
        )

    def weight(
        self, name: str, init: Initializer, axes: Sequence[Axis], x: FeatureMap, collection: str = "params"
    ) -> jax.Array:
        """Declares an array and returns it cut and masked to the widths that `x` carries."""
        return self.narrow(self.declare(name, init, axes, collection).value, axes, x, name)

    def narrow(self, value: jax.Array, axes: Sequence[Axis], x: FeatureMap, name: str) -> jax.Array:
        """Cuts, then masks. Arrays that were sliced before (`slicing.cut`) pass through uncut."""
        for position, axis in enumerate(axes):
            full, size = full_length(axis), static_length(axis, x.widths)
            if value.shape[position] not in (full, size):
                raise ValueError(
                    f"{'/'.join(self.path)}/{name}: axis {position} has {value.shape[position]} entries; expected "
                    f"{full} (full size) or {size} (the subnet's). Were these variables made for another network?"
                )
        return narrow(value, axes, x.widths)


def conv_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 2 / (k * k * c_out)), `shape` [k, k, c_in, c_out]: He's rule by fan-out, as in S-Net."""
    return jax.random.normal(key, shape) * (2.0 / (shape[0] * shape[1] * shape[3])) ** 0.5


def dense_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 0.01^2), the classifiers' initialisation in S-Net and US-Net."""
    return 0.01 * jax.random.normal(key, shape)


def zeros(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    del key
    return jnp.zeros(shape)


def ones(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    del key
    return jnp.ones(shape)


class Conv(SlimLayer):
    """Convolution into `group`, padded by kernel_size // 2 on every side (unlike TensorFlow's SAME).

    A grouped convolution stores a kernel of [k, k, c_in / conv_groups, c_out]; both counts must be multiples
    of `conv_groups` at every width (`Group.multiple_of`).
    Differs: channels of a grouped convolution are interleaved: c belongs to conv group c mod conv_groups, so that every
    leading slice has equally many in each. It is one convolution, with the kernel of `convolution.dense_kernel`.

    Args:
      shuffled: as after a channel shuffle of the input, without moving a channel (see `dense_kernel`).

    >>> from slimjax import Conv, FeatureMap, Group
    >>> x = FeatureMap.of(jnp.ones((1, 4, 4, 3)))
    >>> y, _ = Conv(Group("body", 8), stride=2).init_with_output(jax.random.key(0), x)
    >>> y.group.name, y.value.shape
    ('body', (1, 2, 2, 8))
    """

    group: Group
    kernel_size: int = 3
    stride: int = 1
    conv_groups: int = 1
    shuffled: bool = False
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        k, inputs = self.kernel_size, x.group.times(Fraction(1, self.conv_groups))
        kernel = self.weight("kernel", conv_init, (k, k, inputs, self.group), x)
        kernel = dense_kernel(kernel, self.conv_groups, self.shuffled)
        value = _convolve(x, kernel, self.stride, self.dtype)
        if self.use_bias:
            value += _spread(self.weight("bias", zeros, (self.group,), x).astype(self.dtype), value)
        return x.with_value(value, self.group)


class DepthwiseConv(SlimLayer):
    """One filter per channel: the output stays in the input's group.

    Args:
      window: the side of the kernel, where a choice sets it; its largest is `kernel_size`.
    """

    kernel_size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    window: Window | None = None

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        k = self.window or self.kernel_size
        # Named apart from "kernel" because the papers do not decay depthwise weights (optimizers.py).
        kernel = self.weight("depthwise_kernel", conv_init, (k, k, 1, x.group), x)
        return x.with_value(_convolve(x, kernel, self.stride, self.dtype, kernel.shape[-1]))


def _convolve(x: FeatureMap, kernel: jax.Array, stride: int, dtype: Any, groups: int = 1) -> jax.Array:
    return saved(
        convolve(
            x.value.astype(dtype), kernel.astype(dtype), stride, groups, x.widths.portable, x.widths.in_branch
        )
    )


def wide(dtype: Any) -> Any:
    """float32 for it and for everything smaller; float64 stays."""
    return jnp.promote_types(dtype, jnp.float32)


def _spread(vector: jax.Array, like: jax.Array) -> jax.Array:
    """A vector of channels with the leading unit axes that it needs to meet `like`."""
    return jax.lax.broadcast_to_rank(vector, like.ndim)


class Dense(SlimLayer):
    """Matrix product over the last axis into `group`."""

    group: Group
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        kernel = self.weight("kernel", dense_init, (x.group, self.group), x)
        value = x.value.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            value += _spread(self.weight("bias", zeros, (self.group,), x).astype(self.dtype), value)
        return x.with_value(value, self.group)


class BatchNorm(SlimLayer):
    """Batch normalisation that never averages over batches: whoever calls decides what becomes of statistics.

    Training normalises with the batch's own (biased) statistics. If `batch_stats` is mutable, the entries
    that this width owns are *replaced* by this batch's mean and variance and all others are left alone;
    `batch_stats.blend` makes running or cumulative averages of them. Outside training the collection is
    read. Statistics and normalisation are float32, whatever smaller type the convolutions compute in.

    Mean and variance come from one pass over the batch, and from one exchange between devices (`moments`). float64 and
    calibration take two passes.

    Args:
      epsilon: added to the variance.
      sync: where a batch is split over devices, statistics are those of the whole batch; false: each
        device normalises with its own, and the mean over the devices is stored.
      affine: gamma and beta; false: neither.
      unbiased: store the variance of n values as their sum of squares over n - 1, as PyTorch's running variance,
        and so the papers', has it. False: over n, as TensorFlow and Once-for-All have it. The batch itself is
        normalised by the latter either way.
      two_pass: always take the second pass.

    Raises:
      ValueError: statistics are to be collected outside training, or are missing outside training.
    """

    in_place: ClassVar[bool] = True

    epsilon: float = 1e-5
    sync: bool = True
    unbiased: bool = True
    affine: bool = True
    two_pass: bool = False

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool) -> FeatureMap:
        value = x.value.astype(wide(x.value.dtype))
        if train:
            exact = self.two_pass or x.widths.exact or value.dtype == jnp.float64
            found = moments(value, self._averager(x, self.sync), exact, mends=x.value.dtype == jnp.float32)
            found = saved(found)
            if self.is_mutable_collection("batch_stats"):
                self._store(x, found, count=value[..., 0].size)
            if self.sync and x.widths.batch_axis:
                # Of each device from here on: gradients are added up once, not at each use.
                found = jax.lax.pcast(found, x.widths.batch_axis, to="varying")
            mean, variance = found
        else:
            mean, variance = (_spread(statistic, value) for statistic in self._load(x))
        scale = jax.lax.rsqrt(variance + self.epsilon)
        if self.affine:
            scale = _spread(self.weight("scale", ones, (x.group,), x, "affine"), value) * scale
        value = (value - mean) * scale
        if self.affine:
            value += _spread(self.weight("bias", zeros, (x.group,), x, "affine"), value)
        return x.with_value(value.astype(x.value.dtype))

    def _averager(self, x: FeatureMap, wanted: bool) -> Callable[[jax.Array], jax.Array]:
        """The mean over the devices that share the batch, if it is wanted and there are any."""
        axis = x.widths.batch_axis
        return functools.partial(jax.lax.pmean, axis_name=axis) if wanted and axis else lambda value: value

    def _store(self, x: FeatureMap, found: jax.Array, count: int) -> None:
        variables = self._statistics(x)
        if self.is_initializing():
            return
        if x.widths.batch_axis and self.sync:
            count *= jax.lax.axis_size(x.widths.batch_axis)
        correction = count / (count - 1) if self.unbiased and count > 1 else 1.0
        average = self._averager(x, not self.sync)
        mask = x.width_of(x.group).mask()
        mean, variance = found
        for variable, batch in zip(variables, (mean, variance * correction), strict=True):
            new = average(batch).reshape(-1)
            owned = variable.value[: new.size]
            new = new if mask is None else jnp.where(mask, new, owned)
            variable.value = jnp.asarray(variable.value).at[: new.size].set(new)

    def _load(self, x: FeatureMap) -> tuple[jax.Array, jax.Array]:
        if self.is_mutable_collection("batch_stats"):
            raise ValueError(
                f"{'/'.join(self.path)}: batch statistics are collected in training mode only; "
                "collecting them with train=False would leave them as they are."
            )
        if not self.has_variable("batch_stats", "mean"):
            raise ValueError(
                f"{'/'.join(self.path)}: no batch_stats for this subnet; calibrate it first (batch_stats.calibrate)."
            )
        mean, variance = (self.narrow(v.value, (x.group,), x, "batch_stats") for v in self._statistics(x))
        return mean, variance

    def _statistics(self, x: FeatureMap) -> tuple[nn.Variable, nn.Variable]:
        mean = self.declare("mean", zeros, (x.group,), "batch_stats")
        return mean, self.declare("var", ones, (x.group,), "batch_stats")


class AveragePool(Layer):
    """Mean over windows, padded by kernel_size // 2 on every side; the zeros of the padding count."""

    kernel_size: int = 3
    stride: int = 2

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        k, s, pad = self.kernel_size, self.stride, self.kernel_size // 2
        return x.map(lambda value: nn.avg_pool(value, (k, k), (s, s), ((pad, pad), (pad, pad))))


class GlobalPool(Layer):
    """Mean over height and width, in float32 at least: [B, H, W, C] to [B, C]."""

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        return x.map(lambda value: value.astype(wide(value.dtype)).mean((1, 2)))


def merge_variables(params: Any, affine: Any, batch_stats: Any | None = None) -> Mapping[str, Any]:
    """The variables of one forward pass from the parts that the caller has chosen by name."""
    variables = {"params": params, "affine": affine}
    return variables if batch_stats is None else {**variables, "batch_stats": batch_stats}
