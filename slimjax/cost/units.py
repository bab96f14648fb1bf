"""Units: the pieces of a network that latency tables are made of.

The forward pass is divided before each layer that has a kernel (convolution, depthwise, dense) where it enters another
top-level module, or another branch of a choice, and a single feature map is alive: a residual block or an inverted
residual stays whole, and a layer's norm and activation go with it, as compilers fuse them. The stem goes with the first
block: its result is the largest, and whether it is ever written to memory is the compiler's choice. Each branch of a
choice is at least one unit; where a choice sets the side of a kernel, there is a unit for each option. Units are taken
from what was recorded, so what is measured is what the network does, and a user's own network is divided likewise.

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
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from slimjax.nn.choices import Gate, Under, When, Window
from slimjax.nn.feature_map import Axis, FeatureMap, axis_length
from slimjax.nn.space import Space
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
      under: the choices' options under which it runs.
      options: of the choices that set its kernels' sides, by name.
    """

    key: str
    axes: tuple[Group, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ops: Mapping[int, Op]
    sources: Mapping[int, Op]
    layers: tuple[LayerRecord, ...]
    under: Under = ()
    options: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def forward(self, sizes: Sequence[int]) -> Callable[[Any, Sequence[jax.Array]], list[jax.Array]]:
        """The unit as a function of (variables, input values), at `sizes` channels of its axes."""
        gates = {name: Gate(option) for name, option in self.options.items()}
        groups = {group.name: Width(size) for group, size in zip(self.axes, sizes, strict=True)}
        widths = Widths(groups, gates=gates)

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
        length = functools.partial(axis_length, entries={**channels, **self.options})
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
    """The units of a network in call order, for one resolution after the other; together they are the forward pass of
    every subnet."""
    return [
        unit
        for version in records.versions
        for positions in _stretches(version.ops)
        for unit in _units(version, positions)
    ]


def whole(records: Records, chosen: Mapping[str, int] = MappingProxyType({})) -> Unit:
    """The whole network as one unit, where choices take these options (positions, by name): what the sum over the units
    of this path stands for."""
    path = records.path(chosen)
    found = _units(path, range(1, len(path.ops)))
    return next(
        unit for unit in found if all(chosen[name] == option for name, option in unit.options.items())
    )


def legal_counts(parts: Sequence[Unit], space: Space) -> dict[str, list[np.ndarray]]:
    """By key, the channel counts that a space allows along each axis, over all units that share the key."""
    legal: dict[str, list[np.ndarray]] = {}
    for part in parts:
        own = [space.legal(group) for group in part.axes]
        known = legal.setdefault(part.key, own)
        legal[part.key] = [np.union1d(*pair) for pair in zip(known, own, strict=True)]
    return legal


def _stretches(ops: Sequence[Op]) -> list[list[int]]:
    """Positions of the ops of each unit. What a choice does with its branches' results is no arithmetic."""
    last_reader = _last_readers(ops)
    stretches: list[list[int]] = []
    home: tuple[str, ...] | None = None
    joins_stem = True  # the stem goes with the first block
    for i, op in enumerate(ops[1:], 1):
        if op.choice is not None:
            continue
        new = not stretches or ops[stretches[-1][-1]].under != op.under
        if op.layer is not None and op.layer.has_kernel:
            alone = all(last_reader.get(j, 0) < i for j in range(i - 1))
            enters = home is not None and op.layer.home != home and alone
            home = op.layer.home
            new, joins_stem = new or (enters and not joins_stem), joins_stem and not enters
        if new:
            stretches.append([])
        stretches[-1].append(i)
    return stretches


def _last_readers(ops: Sequence[Op]) -> dict[int, int]:
    """The last op that reads each op's result; a choice among results hands the last of them on."""
    read: dict[int, int] = {}
    for i, op in enumerate(ops):
        read |= dict.fromkeys(op.inputs if op.choice is None else (), i)
    for i, op in reversed(list(enumerate(ops))):
        if op.choice is not None:
            read[op.inputs[-1]] = max(read.get(op.inputs[-1], 0), read.get(i, 0))
    return read


def _units(records: Records, positions: Sequence[int]) -> list[Unit]:
    """One stretch; once for each option, where a choice sets the side of a kernel."""
    ops = {i: records.ops[i] for i in positions}
    paths = [op.layer.path for op in ops.values() if op.layer is not None]
    within = tuple(r for r in records.layers if any(r.path[: len(path)] == path for path in paths))
    inputs = tuple(dict.fromkeys(j for op in ops.values() for j in op.inputs if j not in ops))
    later = {j for i, op in enumerate(records.ops) if i not in ops for j in op.inputs}
    outputs = tuple(i for i in positions if i in later or i == len(records.ops) - 1)
    sources = {j: records.ops[j] for j in inputs}
    kernel = [axis for record in within for array in record.arrays if array.is_kernel for axis in array.axes]
    passed = [op.group for op in (*sources.values(), *ops.values())]
    groups = [axis.base for axis in (*kernel, *passed) if isinstance(axis, Group) and not axis.fixed]
    axes, under = tuple(dict.fromkeys(groups)), records.ops[positions[0]].under
    windows = dict.fromkeys(axis.choice for axis in kernel if isinstance(axis, Window))
    units = []
    for chosen in itertools.product(*(range(len(choice)) for choice in windows)):
        options = {choice.name: option for choice, option in zip(windows, chosen, strict=True)}
        more = tuple(When(choice, (option,)) for choice, option in zip(windows, chosen, strict=True))
        key = _key(ops, inputs, outputs, sources, axes, options)
        units.append(Unit(key, axes, inputs, outputs, ops, sources, within, (*under, *more), options))
    return units


def _key(
    ops: Mapping[int, Op],
    inputs: Sequence[int],
    outputs: Sequence[int],
    sources: Mapping[int, Op],
    axes: Sequence[Group],
    options: Mapping[str, int],
) -> str:
    letters = dict(zip((group.name for group in axes), string.ascii_lowercase, strict=False))
    names = {position: f"x{i}" for i, position in enumerate(inputs)}
    shown = [f"{names[i]}:{_shape(sources[i], letters)}" for i in inputs]
    words = []
    previous = inputs[0]
    for number, (position, op) in enumerate(ops.items()):
        names[position] = f"y{number}"
        words.append(_word(op, letters, options))
        if op.inputs != (previous,):
            words[-1] += f"({' '.join(names[i] for i in op.inputs)})"
        previous = position
    gives = "" if outputs == (previous,) else " -> " + " ".join(names[i] for i in outputs)
    return f"{' '.join(shown)} -> {', '.join(words)}{gives}"


def _word(op: Op, letters: Mapping[str, str], options: Mapping[str, int]) -> str:
    if op.layer is None:
        return op.name if op.name.isidentifier() else f"map-{_digest(op)}"
    record = op.layer
    spatial = record.has_kernel and record.in_size
    side = next((w.sizes[options[w.choice.name]] for w in record.windows), record.kernel_size)
    kernel = f"{side}x{side}" if spatial else ""
    stride = f"/{record.stride}" if record.stride > 1 else ""
    made = f"[{' '.join(record.options)}]" if record.options else ""
    bias = "+bias" if any(a.collection == "params" and not a.is_kernel for a in record.arrays) else ""
    channels = f" {_letter(record.in_group, letters)}>{_letter(record.out_group, letters)}"
    return (
        record.kind
        + kernel
        + stride
        + made
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
