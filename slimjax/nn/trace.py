"""Layer records: what a network is made of, read off one abstract trace.

Nothing is declared twice. A network built from `slimjax.nn.layers`, the library's or a user's own, is traced
once at full size with `jax.eval_shape` (no arithmetic is done), and the calls of its layers are written
down, with what happens to feature maps in between. The width space, MACs, parameters, peak memory, the
slicing map and the pieces that latency tables are made of all follow from this list alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.choices import Choice, Under, When, Window, holds
from slimjax.nn.feature_map import Axis as ArrayAxis
from slimjax.nn.feature_map import FeatureMap
from slimjax.nn.layers import Layer
from slimjax.nn.mixed import Choosing
from slimjax.nn.space import Axis
from slimjax.nn.widths import Group


@dataclasses.dataclass(frozen=True)
class ArrayRecord:
    """One declared array: its collection, name, and axes (plain lengths or groups)."""

    collection: str
    name: str
    axes: tuple[ArrayAxis, ...]

    @property
    def is_kernel(self) -> bool:
        return self.name.endswith("kernel")


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """One layer call: where it is, what it is, its groups, its arrays, and its spatial sizes [H, W].

    Args:
      conv_groups: of a grouped convolution, which interleaves its channels; else 1.
      by_position: see `layers.Layer`.
      options: "field=value" of what else it was made with that differs from its class's default.
      under: the choices' options under which it runs.
      home: path of the branch that it is in, or of the network's module.
    """

    path: tuple[str, ...]
    kind: str
    in_group: Group
    out_group: Group
    kernel_size: int
    stride: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    arrays: tuple[ArrayRecord, ...]
    conv_groups: int = 1
    by_position: bool = False
    options: tuple[str, ...] = ()
    under: Under = ()
    home: tuple[str, ...] = ()

    @property
    def has_kernel(self) -> bool:
        return any(array.is_kernel for array in self.arrays)

    @property
    def choices(self) -> list[Choice]:
        """Those that it, or one of its arrays, depends on."""
        return [*(choice for choice, _ in self.under), *(window.choice for window in self.windows)]

    @property
    def windows(self) -> list[Window]:
        """Those among the axes of its arrays."""
        return [axis for array in self.arrays for axis in array.axes if isinstance(axis, Window)]


@dataclasses.dataclass(frozen=True)
class Op:
    """One step of the forward pass, which makes one feature map: a layer, or what happens between layers.

    Args:
      name: the function's or the layer's.
      inputs: positions of the ops whose feature maps it reads.
      group, size, dtype: of the feature map that it makes; `size` is [H, W], or empty after pooling.
      in_place: the result can take the storage of an input of its size that nobody needs any more.
      layer: the record, if it is a layer.
      apply: `(variables, *feature maps) -> feature map`, in inference; `variables` are the layer's own.
      under: the choices' options under which it runs.
      choice: the op is no arithmetic, but one of its inputs: that of the option which the choice takes.
    """

    name: str
    inputs: tuple[int, ...]
    group: Group
    size: tuple[int, ...]
    dtype: Any
    in_place: bool
    layer: LayerRecord | None
    apply: Callable[..., FeatureMap]
    under: Under = ()
    choice: Choice | None = None


@dataclasses.dataclass(frozen=True)
class Records:
    """A network written down: iterating gives its layers in call order; `ops` is the whole forward pass.

    Args:
      sized: the same network on images of each resolution, under the option of it; none: there is one resolution.
    """

    layers: tuple[LayerRecord, ...]
    ops: tuple[Op, ...]
    sized: tuple[Records, ...] = ()

    def __iter__(self) -> Iterator[LayerRecord]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def path(self, chosen: Mapping[str, int]) -> Records:
        """What runs where choices take these options (positions, by name), each op with what it reads then."""
        found: list[Op] = []
        for version in self.versions:  # of a version for another resolution nothing is on the path
            place: dict[int, int] = {}
            for i, op in enumerate(version.ops):
                if not holds(op.under, chosen):
                    continue
                if op.choice is not None:
                    place[i] = place[
                        op.inputs[chosen[op.choice.name]]
                    ]  # it is that feature map, not another one
                    continue
                place[i] = len(found)
                found.append(dataclasses.replace(op, inputs=tuple(place[j] for j in op.inputs)))
        layers = [
            layer for version in self.versions for layer in version.layers if holds(layer.under, chosen)
        ]
        return Records(tuple(layers), tuple(found))

    @property
    def versions(self) -> tuple[Records, ...]:
        """What runs: one for each resolution."""
        return self.sized or (self,)

    def part(self, layers: slice) -> Records:
        """Some of the layers, in every version, without ops."""
        return Records(self.layers[layers], (), tuple(version.part(layers) for version in self.sized))

    def only(self, when: When) -> Records:
        """The network under one more condition."""
        layers = tuple(dataclasses.replace(layer, under=(when, *layer.under)) for layer in self.layers)
        return Records(layers, tuple(dataclasses.replace(op, under=(when, *op.under)) for op in self.ops))


def trace(model: nn.Module, image_shape: Sequence[int], resolution: Choice | None = None) -> Records:
    """The records of `model` for images of shape [H, W, C].

    Args:
      resolution: options are sides of square images in pixels, the last one that of `image_shape`.

    Raises:
      ValueError: if one group name is used with two sizes.
    """
    scribe = _Scribe()
    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    with nn.intercept_methods(scribe.listen):
        jax.eval_shape(lambda key, x: model.init(key, x, train=True), jax.random.key(0), image)
    _check_names(scribe.layers)
    records = Records(tuple(scribe.layers), tuple(scribe.ops))
    if resolution is None:
        return records
    sides = map(int, resolution.options[:-1])
    versions = [*(trace(model, (side, side, image_shape[-1])) for side in sides), records]
    sized = tuple(version.only(When(resolution, (option,))) for option, version in enumerate(versions))
    return dataclasses.replace(records, sized=sized)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value", "widths"],
    meta_fields=["group", "position", "scribe"],
)
@dataclasses.dataclass(frozen=True)
class _Traced(FeatureMap):
    """A feature map that knows which op made it, and writes down what is made of it."""

    position: int
    scribe: _Scribe

    def map(self, function: Callable[[jax.Array], jax.Array]) -> FeatureMap:
        name = getattr(function, "__name__", type(function).__name__)
        return self._did(name, lambda _, x: x.map(function), super().map(function))

    def __add__(self, other: FeatureMap) -> FeatureMap:
        return self._did("add", lambda _, x, y: x + y, super().__add__(other), other)

    def __mul__(self, other: FeatureMap) -> FeatureMap:
        return self._did("multiply", lambda _, x, y: x * y, super().__mul__(other), other)

    def _did(
        self, name: str, apply: Callable[..., FeatureMap], result: FeatureMap, *others: FeatureMap
    ) -> FeatureMap:
        return self.scribe.written(name, (self, *others), result, True, None, apply)


class _Scribe:
    """Writes down layer calls while a network is traced."""

    def __init__(self) -> None:
        self.layers: list[LayerRecord] = []
        self.ops: list[Op] = []
        self._arrays: dict[tuple[str, ...], list[ArrayRecord]] = {}
        self._inside = 0
        self._under: Under = ()
        self._home: tuple[str, ...] = ()

    def listen(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, Layer) and context.method_name == "declare":
            self._arrays.setdefault(module.path, []).append(_array_record(*args, **kwargs))
        if isinstance(module, Layer) and context.method_name == "__call__":
            return self._layer(module, call, args, kwargs)
        if isinstance(module, Choosing) and context.method_name == "branch":
            return self._branch(module, call, args, kwargs)
        if isinstance(module, Choosing) and context.method_name == "chosen":
            return self._chosen(module, call(*args, **kwargs), *args)
        return call(*args, **kwargs)

    def _branch(self, module: Choosing, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What a branch does, it does under a condition, unless it holds for every option."""
        when, before = module.when(args[0]), (self._under, self._home)
        if len(when.options) < len(when.choice):
            self._under = (*self._under, when)
        self._home = module.module(args[0]).path
        try:
            return call(*args, **kwargs)
        finally:
            self._under, self._home = before

    def _chosen(
        self, module: Choosing, result: FeatureMap, results: Sequence[FeatureMap], weights: None = None
    ) -> FeatureMap:
        del weights
        last = lambda _, *maps: maps[-1]  # noqa: E731
        return self.written("chosen", results, result, True, None, last, module.choice)

    def _layer(self, module: Layer, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Calls a layer with plain feature maps: layers within it are part of the same op."""
        self._inside += 1
        try:
            result = call(*map(_plain, args), **kwargs)
        finally:
            self._inside -= 1
        record = _layer_record(module, args[0], result, self._arrays.pop(module.path, []))
        home = self._home or module.path[:1]
        record = dataclasses.replace(record, under=self._under, home=home)
        self.layers.append(record)
        if self._inside:
            return result
        inputs = [self._known(x) for x in args if isinstance(x, FeatureMap)]
        apply = _replay(module, len(inputs), args, kwargs)
        return self.written(record.kind, inputs, result, module.in_place, record, apply)

    def _known(self, x: FeatureMap) -> FeatureMap:
        """A feature map that no op has made is where the network starts."""
        if isinstance(x, _Traced):
            return x
        return self.written(x.group.name, (), x, False, None, lambda _, image: image)

    def written(
        self,
        name: str,
        inputs: Sequence[FeatureMap],
        result: FeatureMap,
        in_place: bool,
        layer: LayerRecord | None,
        apply: Callable[..., FeatureMap],
        choice: Choice | None = None,
    ) -> FeatureMap:
        """Appends the op that made `result` and returns it as a feature map that knows so."""
        read = tuple(x.position for x in inputs if isinstance(x, _Traced))
        value, group, size = result.value, result.group, result.value.shape[1:-1]
        self.ops.append(Op(name, read, group, size, value.dtype, in_place, layer, apply, self._under, choice))
        return _Traced(value, group, result.widths, len(self.ops) - 1, self)


def _plain(x: Any) -> Any:
    return FeatureMap(x.value, x.group, x.widths) if isinstance(x, FeatureMap) else x


def _replay(module: Layer, count: int, args: Any, kwargs: Any) -> Callable[..., Any]:
    """The layer as a function of its own variables and its `count` feature maps, in inference."""
    bound = inspect.signature(type(module).__call__).bind(module, *args, **kwargs).arguments
    fixed = {name: value for name, value in bound.items() if name != "self"}
    fixed = {name: value for name, value in fixed.items() if not isinstance(value, FeatureMap)}
    if "train" in fixed:
        fixed["train"] = False
    alone = module.clone(parent=None)
    return lambda variables, *maps: alone.apply(variables, *maps[:count], **fixed)


def _array_record(
    name: str, init: object, axes: Sequence[ArrayAxis], collection: str = "params"
) -> ArrayRecord:
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
        conv_groups=getattr(module, "conv_groups", 1),
        by_position=getattr(module, "by_position", False),
        options=_options(module),
    )


_SHOWN_ELSEWHERE = ("kernel_size", "stride", "use_bias", "epsilon", "sync", "unbiased", "affine", "two_pass")
"""Fields that a record has otherwise, or that cost nothing: a norm scales and shifts with and without gammas and betas,
so that a table of the network that is shipped serves a search in a supernet without them."""


def _options(module: nn.Module) -> tuple[str, ...]:
    fields = [field for field in dataclasses.fields(module) if field.name not in _SHOWN_ELSEWHERE]
    values = [
        (field, getattr(module, field.name)) for field in fields if field.name not in ("name", "parent")
    ]
    return tuple(
        f"{field.name}={value}"
        for field, value in values
        if isinstance(value, bool | int | float | str) and value != field.default
    )


def _check_names(layers: Sequence[LayerRecord]) -> None:
    """One name, one group or choice; and a layer that is called twice is under the same conditions both times."""
    seen: dict[str, Axis] = {}
    paths: dict[tuple[str, ...], Under] = {}
    for record in layers:
        where = "/".join(record.path)
        if record.arrays and paths.setdefault(record.path, record.under) != record.under:
            raise ValueError(
                f"layer {where}: it is called under {record.under} and under {paths[record.path]}."
            )
        axes: list[Axis] = [record.in_group.base, record.out_group.base, *record.choices]
        for axis in axes:
            if seen.setdefault(axis.name, axis) != axis:
                kind = type(axis).__name__.lower()
                raise ValueError(
                    f"layer {where}: {kind} {axis.name!r} is {axis}, but was {seen[axis.name]} before. One name, one "
                    "group or choice."
                )
