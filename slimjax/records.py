"""Layer records: what a network is made of, read off one abstract trace.

Nothing is declared twice. A network built from `slimjax.layers`, the library's or a user's own, is traced
once at full size with `jax.eval_shape` (no arithmetic is done), and the calls of its layers are written
down. The width space, MACs, parameters and the slicing map all follow from this list alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.layers import AveragePool, Axis, FeatureMap, GlobalPool, SlimLayer
from slimjax.widths import Group, Rounding, WidthSpace


@dataclasses.dataclass(frozen=True)
class ArrayRecord:
    """One declared array: its collection, name, and axes (plain lengths or groups)."""

    collection: str
    name: str
    axes: tuple[Axis, ...]

    @property
    def is_kernel(self) -> bool:
        return self.name.endswith("kernel")


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """One layer call: where it is, what it is, its groups, its arrays, and its spatial sizes [H, W]."""

    path: tuple[str, ...]
    kind: str
    in_group: Group
    out_group: Group
    kernel_size: int
    stride: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    arrays: tuple[ArrayRecord, ...]


Records = tuple[LayerRecord, ...]


def trace(model: nn.Module, image_shape: Sequence[int]) -> Records:
    """The layer records of `model`, in call order, for images of shape [H, W, C].

    Raises:
      ValueError: if one group name is used with two sizes.
    """
    layers: list[LayerRecord] = []
    arrays: dict[tuple[str, ...], list[ArrayRecord]] = {}

    def listen(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module, result = context.module, call(*args, **kwargs)
        if isinstance(module, SlimLayer) and context.method_name == "declare":
            arrays.setdefault(module.path, []).append(_array_record(*args, **kwargs))
        elif isinstance(module, SlimLayer | GlobalPool | AveragePool) and context.method_name == "__call__":
            layers.append(_layer_record(module, args[0], result, arrays.pop(module.path, [])))
        return result

    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    with nn.intercept_methods(listen):
        jax.eval_shape(lambda key, x: model.init(key, x, train=True), jax.random.key(0), image)
    _check_groups(layers)
    return tuple(layers)


def width_space(records: Records, rounding: Rounding, min_width: float, max_width: float = 1.0) -> WidthSpace:
    """The space of all subnets of a traced network: its slimmable groups in order of first appearance."""
    groups = dict.fromkeys(group.base for record in records for group in (record.in_group, record.out_group))
    return WidthSpace(tuple(groups), rounding, min_width, max_width)


def _array_record(name: str, init: object, axes: Sequence[Axis], collection: str = "params") -> ArrayRecord:
    del init
    return ArrayRecord(collection, name, tuple(axes))


def _layer_record(
    module: nn.Module, x: FeatureMap, y: FeatureMap, arrays: Sequence[ArrayRecord]
) -> LayerRecord:
    return LayerRecord(
        path=module.path,
        kind=type(module).__name__,
        in_group=x.group,
        out_group=y.group,
        kernel_size=getattr(module, "kernel_size", 1),
        stride=getattr(module, "stride", 1),
        in_size=x.value.shape[1:-1],
        out_size=y.value.shape[1:-1],
        arrays=tuple(arrays),
    )


def _check_groups(layers: Sequence[LayerRecord]) -> None:
    seen: dict[str, Group] = {}
    for record in layers:
        for group in (record.in_group, record.out_group):
            if seen.setdefault(group.name, group.base) != group.base:
                raise ValueError(
                    f"layer {'/'.join(record.path)}: group {group.name!r} is {group.base}, "
                    f"but was {seen[group.name]} before. One name, one group."
                )
