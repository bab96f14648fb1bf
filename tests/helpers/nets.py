"""Every architecture in small, its variables, a subnet of it, and the forms in which a subnet runs."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from helpers.choosing import choosing
from slimjax import models
from slimjax.models.mobilenet_v3 import LARGE, SMALL
from slimjax.nn import layers
from slimjax.nn.heads import SqueezeExcite
from slimjax.nn.layers import BatchNorm, Conv, Dense, DepthwiseConv, FeatureMap, GlobalPool
from slimjax.nn.widths import Group, Rounding
from slimjax.supernet import Supernet, make_supernet


class EveryLayer(nn.Module):
    """One of each: convolution with bias, tie, depthwise, squeeze-excite, shortcut, norm, dense."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, widths=None, train=False):
        a, b = Group("a", 8), Group("b", 16)
        x = Conv(a, use_bias=True, dtype=self.dtype, name="stem")(FeatureMap.of(images, widths))
        x = BatchNorm(name="norm1")(x, train).map(jax.nn.sigmoid)  # does not map 0 to 0
        y = DepthwiseConv(dtype=self.dtype, name="depthwise")(x).map(jnp.cos)
        y = SqueezeExcite(Group("squeeze", 4), dtype=self.dtype, name="se")(BatchNorm(name="norm2")(y, train))
        x = layers.PadShortcut(b, 2, name="shortcut")(x + y) + Conv(
            b, stride=2, dtype=self.dtype, name="down"
        )(x)
        x = GlobalPool(name="pool")(BatchNorm(name="norm3")(x, train).map(jax.nn.relu))
        return Dense(Group("logits", 5, fixed=True), dtype=self.dtype, name="head")(x).value


@functools.cache
def every_layer() -> Supernet:
    return Supernet(EveryLayer(), (8, 8, 3), Rounding("truncate"), 0.25)


@functools.cache
def named(name: str, **fields) -> Supernet:
    """With five classes and images of eight pixels. The same object each time: it has been traced then."""
    entry = models.lookup(name)
    return make_supernet(entry, entry.build(num_classes=5, **fields), (8, 8, 3))


STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 1, 2, 3))

STAGES_OF_5X5 = ((1, 48, 1, 1, 3), (3, 48, 2, 2, 5))

HEAD = {"tail": 24, "head": 16}

TFNAS = {
    "stages": ((2, 6, 2, "relu"), (1, 8, 1, "swish")),
    "operators": ("k3e3", "k5e3se"),
    "stem": 8,
    "first": 4,
    "tail": 16,
    "stem_stride": 1,
}

# Every architecture, small enough to compile in seconds.
NETS = {
    "every_layer": every_layer,
    "resnet8": lambda: named("resnet8"),
    "resnet18": lambda: named("resnet18", depth=10, channels=(4, 8, 8, 16)),
    "resnet50": lambda: named("resnet50", depth=14, channels=(4, 4, 4, 8), tied_inner=False),
    "us_mobilenet_v1": lambda: named("us_mobilenet_v1", small_images=True, multiplier=0.5),
    "us_mobilenet_v2": lambda: named("us_mobilenet_v2", small_images=True, stages=STAGES),
    "autoslim_mnasnet": lambda: named("autoslim_mnasnet", multiplier=0.5, stages=STAGES_OF_5X5),
    # Their first blocks do not expand: one is tied to the stem, one squeezes. Both activations.
    "mobilenet_v3_large": lambda: named("mobilenet_v3_large", blocks=(LARGE[0], LARGE[3], LARGE[8]), **HEAD),
    "mobilenet_v3_small": lambda: named("mobilenet_v3_small", blocks=(SMALL[0], SMALL[3]), **HEAD),
    # Three stages that leave one pixel; two that leave four, which the hidden layers see flattened.
    "vgg16": lambda: named("vgg16", channels=(4, 8, 8)),
    "vgg16_hidden": lambda: named("vgg16", channels=(4, 8), hidden=(12, 8)),
    "s_shufflenet": lambda: named("s_shufflenet", small_images=True, multiplier=0.25, units=(2, 1, 1)),
    "choosing": choosing,
    "tfnas": lambda: named("tfnas", **TFNAS),
    "tfnas_skip": lambda: named("tfnas", **{**TFNAS, "stages": TFNAS["stages"][:1]}, sinks=False),
}


def subnet_of(net: Supernet) -> np.ndarray:
    """A non-uniform subnet with middle, smallest and full groups."""
    space = net.space
    ladder = [space.uniform((space.max_width + space.min_width) / 2), space.smallest, space.largest]
    return space.canonical(np.array([ladder[i % 3][i] for i in range(len(space))], np.int32))


def rung_of(net: Supernet) -> np.ndarray:
    """Sizes strictly between the subnet and the full network where there is room."""
    multiple = np.array([getattr(axis, "multiple_of", 1) for axis in net.space.axes], np.int32)
    return (subnet_of(net) + net.space.largest) // 2 // multiple * multiple


def variables_of(net: Supernet):
    """Random variables in which nothing hides behind a one or a zero; drawn on the host, without a compile."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10
        return (rng.normal(size=leaf.shape) / np.sqrt(fan)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, dict(net.variable_shapes))


def in_float64(name: str, images: np.ndarray):
    """A network of `NETS` that computes in float64, its variables and the images; within `jax.enable_x64(True)`."""
    net = NETS[name]()
    net = dataclasses.replace(net, model=net.model.clone(dtype=jnp.float64))
    return net, *jax.tree.map(lambda x: x.astype(np.float64), (variables_of(net), images))


def run(net: Supernet, variables, images, widths, train: bool):
    """Logits, updated statistics and the gradients of a scalar of the logits."""
    weights = {name: part for name, part in variables.items() if name != "batch_stats"}
    (_, (logits, new)), grads = _program(net, train)(weights, variables["batch_stats"], images, widths)
    return {"logits": logits, "stats": dict(new), "grads": grads}


@functools.cache
def _program(net: Supernet, train: bool):
    """Jitted, and kept: what differs in values alone is compiled once."""
    slopes = np.linspace(-1, 1, 5, dtype=np.float32)[None]

    def loss(weights, statistics, images, widths):
        mutable = ["batch_stats"] if train else []
        joined = {**weights, "batch_stats": statistics}
        logits, new = net.apply(joined, images, widths, train=train, mutable=mutable)
        # Linear, so that large logits do not magnify rounding.
        return (logits * slopes).mean(), (logits, new)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def forms(net: Supernet, subnet: np.ndarray):
    space = net.space
    return {
        "masked": space.masked(subnet),
        "bucketed": space.bucketed(rung_of(net), subnet),
        "sliced": space.sliced(subnet),
    }


def inactive(net: Supernet, subnet: np.ndarray, variables):
    """Pytree of bool arrays: true for the entries that the subnet does not use."""
    active = net.cut(jax.tree.map(np.ones_like, variables), subnet)
    flat, result = traverse_util.flatten_dict(active), {}
    for path, full in traverse_util.flatten_dict(variables).items():
        used = np.asarray(flat.get(path, np.ones([0] * full.ndim)))
        before = [0] * full.ndim
        if path[-1].endswith("kernel") and full.ndim == 4:  # the middle of a kernel, leading channels
            before[:2] = [(n - m) // 2 for n, m in zip(full.shape[:2], used.shape[:2], strict=True)]
        pads = [(b, n - m - b) for n, m, b in zip(full.shape, used.shape, before, strict=True)]
        result[path] = np.pad(used, pads) == 0
    return traverse_util.unflatten_dict(result)
