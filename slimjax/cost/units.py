"""Units: the pieces of a network that latency tables are made of.

The forward pass is divided before each layer that has a kernel (convolution, depthwise, dense) where it enters another
top-level module and a single feature map is alive: a residual block or an inverted residual stays whole, and a
layer's norm and activation go with it, as compilers fuse them. The stem goes with the first block: its result is the
largest, and whether it is ever written to memory is the compiler's choice. Units are taken from what was recorded, so
what is measured is what the network does, and a user's own network is divided likewise.

Units that do the same arithmetic have the same key, up to the names and sizes of their groups, so they share
one entry of a table:

    x0:32x32xa -> Conv3x3/2 a>b, BatchNorm, relu

reads: of a 32 x 32 map of a channels, a 3 x 3 convolution of stride 2 into b channels, and so on. a, b, ... are
the unit's axes; x0, x1, ... the feature maps that it reads.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from slimjax.nn.feature_map import Axis, FeatureMap, axis_length
from slimjax.nn.trace import LayerRecord, Op, Records
from slimjax.nn.widths import Group, Width, Widths


@dataclasses.dataclass(frozen=True)
class Unit:
    """A stretch of the forward pass.

    Args:
      key: what it computes, without the names of its groups.
      axes: the slimmable groups that its cost depends on, in the order of the key's letters.
      inputs, outputs: positions of the feature maps that it reads from elsewhere, and gives to elsewhere.
      ops, sources: its ops, and those that made its inputs, by position.
      layers: the records of its layers.
    """

    key: str
    axes: tuple[Group, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ops: Mapping[int, Op]
    sources: Mapping[int, Op]
    layers: tuple[LayerRecord, ...]

    def forward(self, sizes: Sequence[int]) -> Callable[[Any, Sequence[jax.Array]], list[jax.Array]]:
        """The unit as a function of (variables, input values), at `sizes` channels of its axes."""
        widths = Widths({group.name: Width(size) for group, size in zip(self.axes, sizes, strict=True)})

        def run(variables: Mapping[str, Any], values: Sequence[jax.Array]) -> list[jax.Array]:
            maps = {
                i: FeatureMap(value, self.sources[i].group, widths)
                for i, value in zip(self.inputs, values, strict=True)
            }
            for i, op in self.ops.items():
                own = variables.get("/".join(op.layer.path), {}) if op.layer else {}
                maps[i] = op.apply(own, *(maps[j] for j in op.inputs))
            return [maps[i].value for i in self.outputs]

        return run

    def arguments(self, sizes: Sequence[int], batch: int) -> tuple[Any, list[Any]]:
        """Shapes of `forward`'s arguments, for images in batches of `batch`."""
        channels = dict(zip((group.name for group in self.axes), sizes, strict=True))
        length = functools.partial(axis_length, channels=channels)
        variables = {
            "/".join(op.layer.path): self._variables(op.layer.path, length)
            for op in self.ops.values()
            if op.layer
        }
        values = [
            jax.ShapeDtypeStruct((batch, *source.size, length(source.group)), source.dtype)
            for source in map(self.sources.__getitem__, self.inputs)
        ]
        return variables, values

    def _variables(self, path: tuple[str, ...], length: Callable[[Axis], int]) -> Any:
        """The arrays of a layer and of the layers within it, nested as Flax applies them."""
        flat = {
            (array.collection, *record.path[len(path) :], array.name): jax.ShapeDtypeStruct(
                tuple(map(length, array.axes)), jnp.float32
            )
            for record in self.layers
            if record.path[: len(path)] == path
            for array in record.arrays
        }
        return traverse_util.unflatten_dict(flat)


def divide(records: Records) -> list[Unit]:
    """The units of a network in call order; together they are its whole forward pass."""
    ops = records.ops
    last_reader = {j: i for i, op in enumerate(ops) for j in op.inputs}
    kernels = {
        i: op.layer.path[0] for i, op in enumerate(ops) if op.layer is not None and op.layer.has_kernel
    }
    starts = [
        i
        for (_, before), (i, module) in itertools.pairwise(kernels.items())
        if module != before and all(last_reader.get(j, 0) < i for j in range(i - 1))
    ]
    bounds = [1, *starts[1:], len(ops)]  # the stem goes with the first block
    return [_unit(records, range(*pair)) for pair in itertools.pairwise(bounds)]


def whole(records: Records) -> Unit:
    """The whole network as one unit: what the sum over its units stands for."""
    return _unit(records, range(1, len(records.ops)))


def _unit(records: Records, positions: range) -> Unit:
    ops = {i: records.ops[i] for i in positions}
    paths = [op.layer.path for op in ops.values() if op.layer is not None]
    within = tuple(r for r in records.layers if any(r.path[: len(path)] == path for path in paths))
    inputs = tuple(dict.fromkeys(j for op in ops.values() for j in op.inputs if j not in ops))
    later = {j for op in records.ops[positions.stop :] for j in op.inputs}
    outputs = tuple(i for i in positions if i in later or i == len(records.ops) - 1)
    sources = {j: records.ops[j] for j in inputs}
    kernel = [
        axis
        for record in within
        for array in record.arrays
        if array.is_kernel
        for axis in array.axes
        if isinstance(axis, Group)
    ]
    passed = [op.group for op in (*sources.values(), *ops.values())]
    axes = tuple(dict.fromkeys(group.base for group in (*kernel, *passed) if not group.fixed))
    key = _key(ops, inputs, outputs, sources, axes)
    return Unit(key, axes, inputs, outputs, ops, sources, within)


def _key(
    ops: Mapping[int, Op],
    inputs: Sequence[int],
    outputs: Sequence[int],
    sources: Mapping[int, Op],
    axes: Sequence[Group],
) -> str:
    letters = dict(zip((group.name for group in axes), string.ascii_lowercase, strict=False))
    names = {position: f"x{i}" for i, position in enumerate(inputs)}
    shown = [f"{names[i]}:{_shape(sources[i], letters)}" for i in inputs]
    words = []
    previous = inputs[0]
    for number, (position, op) in enumerate(ops.items()):
        names[position] = f"y{number}"
        words.append(_word(op, letters))
        if op.inputs != (previous,):
            words[-1] += f"({' '.join(names[i] for i in op.inputs)})"
        previous = position
    gives = "" if outputs == (previous,) else " -> " + " ".join(names[i] for i in outputs)
    return f"{' '.join(shown)} -> {', '.join(words)}{gives}"


def _word(op: Op, letters: Mapping[str, str]) -> str:
    if op.layer is None:
        return op.name if op.name.isidentifier() else f"map-{_digest(op)}"
    record = op.layer
    spatial = record.has_kernel and record.in_size
    kernel = f"{record.kernel_size}x{record.kernel_size}" if spatial else ""
    stride = f"/{record.stride}" if record.stride > 1 else ""
    options = f"[{' '.join(record.options)}]" if record.options else ""
    bias = "+bias" if any(a.collection == "params" and not a.is_kernel for a in record.arrays) else ""
    channels = f" {_letter(record.in_group, letters)}>{_letter(record.out_group, letters)}"
    return (
        record.kind
        + kernel
        + stride
        + options
        + bias
        + (channels if record.has_kernel or not op.in_place else "")
    )


def _shape(op: Op, letters: Mapping[str, str]) -> str:
    return "x".join([*map(str, op.size), _letter(op.group, letters)])


def _letter(group: Group, letters: Mapping[str, str]) -> str:
    if group.fixed:
        return str(group.channels)
    return letters[group.name] if group.ratio == 1 else f"{group.ratio}{letters[group.name]}"


def _digest(op: Op) -> str:
    """A name for a function that has none, from what it does to a small feature map."""
    x = jnp.zeros((1, *op.size, 2))
    text = str(jax.make_jaxpr(lambda x: op.apply({}, FeatureMap.of(x)).value)(x))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
