"""What a subnet costs: multiply-accumulates, parameters and peak memory, in closed form from layer records.

All are functions of channel counts [..., G], one column per slimmable group of a space:

- integers on the host give exact int64 counts, for one subnet or a million;
- JAX arrays, also inside `jit`, give float32, differentiable in the channels.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.cost.gates import Gates, Weights
from slimjax.nn.choices import Under, When, Window
from slimjax.nn.feature_map import Axis, full_length
from slimjax.nn.space import Space
from slimjax.nn.trace import LayerRecord, Op, Records
from slimjax.nn.widths import Group

Counts = Any
"""int64 [...] or, for JAX arrays, float32 [...]: one count per subnet."""

CHUNK = 1 << 15
"""Subnets that are costed at once: few enough to stay in the cache."""


@dataclasses.dataclass(frozen=True)
class Convention:
    """What counts as a MAC besides convolutions. Papers differ; norms and activations count nowhere.

    Args:
      pooling: one MAC per input element of average pooling; `inner_pooling`: also before the last convolution.
      bias: one for adding a bias to an output element.
      classifier: the dense layers after the last convolution.
    """

    pooling: bool = False
    inner_pooling: bool = True
    bias: bool = False
    classifier: bool = True


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "plain": Convention(),  # the CIFAR ResNets' usual figures; Joslim's ResNets
        "slimmable": Convention(pooling=True),  # S-Net, US-Net, AutoSlim
        "joslim": Convention(classifier=False),  # Joslim's MobileNets
        "tfnas": Convention(pooling=True, inner_pooling=False, bias=True),
    }
)


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as jit needs it
class Quadratic:
    """(constant + linear . n + n . pairs n) / divisor, for channel counts n [..., G], and what choices add to it.

    Every count of a network is such a polynomial: an array has at most two groups of channels. The
    coefficients are whole numbers in float64, exact up to 2^53.
    """

    constant: int
    linear: np.ndarray
    pairs: np.ndarray
    divisor: int = 1
    gated: Gated | None = None

    def __call__(self, subnets: Any) -> Counts:
        return _apply(self._evaluate, subnets, self.chunk)

    def soft(self, subnets: Any, weights: Weights) -> Any:
        """The expected count [...] where choices take their options with probabilities `weights` [..., options].

        Differentiable in both, for JAX arrays. With one-hot weights it is the count of a subnet.

        Args:
          subnets: [..., G]; their entries of choices that have weights do not matter.
        """
        subnets = subnets if isinstance(subnets, jax.Array) else np.asarray(subnets, np.float64)
        return self._evaluate(subnets, weights)

    @property
    def chunk(self) -> int:
        """Subnets at once, on the host."""
        return CHUNK if self.gated is None else 1 + CHUNK // max(8, len(self.gated.coefficients) // 8)

    def _evaluate(self, n: Any, weights: Weights | None = None) -> Any:
        total = ((_dot(n, self.pairs) + _row(self.linear, n)) * n).sum(-1) + self.constant
        return (total if self.gated is None else total + self.gated(n, weights)) / self.divisor


@dataclasses.dataclass(frozen=True, eq=False)
class Gated:
    """A sum over terms t of coefficient_t * gate_t * first_t * second_t.

    Args:
      coefficients: [T], whole numbers; `under`: int [T], which of the gates.
      columns: int [T, 2], of a subnet; its length stands for a factor of 1.
    """

    gates: Gates
    coefficients: np.ndarray
    under: np.ndarray
    columns: np.ndarray

    def __call__(self, n: Any, weights: Weights | None) -> Any:
        numpy: Any = jnp if isinstance(n, jax.Array) else np
        gates = self.gates(n, weights)
        extended = numpy.concatenate([n, numpy.ones((*n.shape[:-1], 1), n.dtype)], -1)
        factors = extended[..., self.columns]
        return (_row(self.coefficients, n) * gates[..., self.under] * factors[..., 0] * factors[..., 1]).sum(
            -1
        )


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as jit needs it
class PeakMemory:
    """Bytes that inference needs at its fullest moment: all weights, and the feature maps alive at once.

    peak_bytes = bytes per element * (parameters + batch * max over moments of the live elements)

    Every layer's result is a feature map, and so are the input image and a padded shortcut. It lives until its
    last reader has run; a shortcut therefore outlives the block that it bridges. Norms, activations, sums and
    products work in place where their size does not change and their input is not needed again. Parameters
    include gammas and betas. Compilers may do better (they fuse) or worse (they copy).

    Args:
      weights: parameters.
      moments: options of the choices -> constants [T], linear [T, G]: live elements of one image at each moment.
    """

    weights: Quadratic
    space: Space
    moments: Callable[[tuple[int, ...]], tuple[np.ndarray, np.ndarray]]

    def __call__(self, subnets: Any, batch: int = 1, itemsize: int = 4) -> Counts:
        """Bytes, for images in batches of `batch` and elements of `itemsize` bytes.

        Raises:
          ValueError: JAX arrays of a space with choices: a peak has no closed form over them.
        """
        if self.space.choices and isinstance(subnets, jax.Array):
            raise ValueError("peak memory of a network with choices: expected subnets on the host (NumPy).")

        def evaluate(n: Any) -> Any:
            return itemsize * (self.weights._evaluate(n) + batch * self._live(n))

        return _apply(evaluate, subnets, self.weights.chunk)

    def _live(self, n: Any) -> Any:
        """Elements of one image at the fullest moment, [...]."""
        groups = len(self.space.groups)
        if not self.space.choices:
            return self._most((), n)
        options, row = np.unique(n[..., groups:].astype(int), axis=0, return_inverse=True)
        result = np.empty(len(n))
        for i, path in enumerate(options):
            result[row == i] = self._most(tuple(path.tolist()), n[row == i])
        return result

    def _most(self, path: tuple[int, ...], n: Any) -> Any:
        constants, linear = self.moments(path)
        return (_dot(n, linear.T) + _row(constants, n)).max(-1)


POOLS = ("GlobalPool", "AveragePool")
"""Layers that average."""


def macs(records: Records, space: Space, convention: Convention) -> Quadratic:
    """Multiply-accumulates of one image. One MAC is one multiply-add."""
    terms = _Terms(space)
    for version in records.versions:
        _count_layers(terms, version, convention)
    return terms.polynomial()


def params(records: Records, space: Space, norms: bool = True) -> Quadratic:
    """Active parameters: kernels, biases and, with `norms`, one gamma and beta per normalised channel."""
    counted = ("params", "affine") if norms else ("params",)
    # Keyed by path: a layer that is called twice owns its arrays once.
    arrays = {(record.path, array.name): (array, record) for record in records for array in record.arrays}
    terms = _Terms(space)
    for array, record in arrays.values():
        if array.collection in counted:
            terms.add(1, array.axes, record.under)
    return terms.polynomial()


def peak_memory(records: Records, space: Space) -> PeakMemory:
    """Live feature maps and weights, by the definition of `PeakMemory`."""

    @functools.cache
    def moments(path: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        chosen = {choice.name: option for choice, option in zip(space.choices, path, strict=True)}
        rows = set()
        for moment in _moments(records.path(chosen).ops):
            terms = _Terms(space)
            for op in moment:
                terms.add(math.prod(op.size), [op.group])
            live = terms.polynomial()
            rows.add((live.constant, *live.linear))
        table = np.array(_undominated(rows))
        return table[:, 0], table[:, 1:]

    return PeakMemory(params(records, space), space, moments)


def _count_layers(terms: _Terms, records: Records, convention: Convention) -> None:
    last = max((i for i, record in enumerate(records) if record.has_kernel and record.in_size), default=-1)
    for i, record in enumerate(records):
        if record.has_kernel and (convention.classifier or i <= last):
            _count_layer(terms, record, convention)
        if record.kind in POOLS and convention.pooling and (convention.inner_pooling or i > last):
            terms.add(math.prod(record.in_size), [record.in_group], record.under)


def _count_layer(terms: _Terms, record: LayerRecord, convention: Convention) -> None:
    for array in record.arrays:
        if array.is_kernel or (convention.bias and array.collection == "params"):
            terms.add(math.prod(record.out_size), array.axes, record.under)


def _moments(ops: Iterable[Op]) -> list[list[Op]]:
    """The feature maps that are alive while each op runs, its own included."""
    ops = list(ops)
    last_reader = {i: i for i in range(len(ops))}
    for i, op in enumerate(ops):
        last_reader |= dict.fromkeys(op.inputs, i)
    alive: set[int] = set()
    moments = []
    for i, op in enumerate(ops):
        dying = {j for j in alive if last_reader[j] <= i}
        reused = op.in_place and any((ops[j].group, ops[j].size) == (op.group, op.size) for j in dying)
        moments.append([ops[j] for j in (alive if reused else alive | {i})])
        alive = (alive - dying) | {i}
    return moments


def _undominated(rows: Iterable[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Rows that no other row exceeds everywhere: only they can be the largest for some subnet."""
    rows = list(rows)
    covers = lambda a, b: a != b and all(x >= y for x, y in zip(a, b, strict=True))  # noqa: E731
    return [row for row in rows if not any(covers(other, row) for other in rows)]


class _Terms:
    """A sum of products of axes, collected by the groups in them and the conditions under which they count."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.sums: dict[tuple[Under, tuple[int, ...]], Fraction] = collections.defaultdict(Fraction)

    def add(self, factor: int, axes: Iterable[Axis], under: Under = ()) -> None:
        """Adds `factor` times the active lengths of `axes`; those of windows once for each option."""
        axes = list(axes)
        for window in (axis for axis in axes if isinstance(axis, Window)):
            for option, size in enumerate(window.sizes):
                now = [size if axis == window else axis for axis in axes]
                self.add(factor, now, (*under, When(window.choice, (option,))))
            return
        product, columns = Fraction(factor), []
        for axis in axes:
            if not isinstance(axis, Group):
                product *= full_length(axis)
            elif axis.fixed:
                product *= axis.channels
            else:
                product *= axis.ratio
                columns.append(self.space.index[axis.name])
        self.sums[under, tuple(sorted(columns))] += product

    def polynomial(self) -> Quadratic:
        """Raises: ValueError for an array with more than two groups."""
        size, divisor = len(self.space), math.lcm(*(c.denominator for c in self.sums.values()))
        linear, pairs, constant = np.zeros(size), np.zeros((size, size)), 0
        gated: list[tuple[Under, int, tuple[int, ...]]] = []
        for (under, columns), coefficient in self.sums.items():
            value = int(coefficient * divisor)
            if len(columns) > 2:
                raise ValueError(f"an array has {len(columns)} axes of slimmable groups; expected 2 at most.")
            match (under, columns):
                case ((), ()):
                    constant += value
                case ((), (i,)):
                    linear[i] += value
                case ((), (i, j)):
                    pairs[i, j] += value
                case _:
                    gated.append((under, value, columns))
        return Quadratic(constant, linear, pairs, divisor, self._gated(gated) if gated else None)

    def _gated(self, terms: Sequence[tuple[Under, int, tuple[int, ...]]]) -> Gated:
        gates, one = Gates.of(self.space, [under for under, _, _ in terms]), len(self.space)
        place = {under: i for i, under in enumerate(gates.unders)}
        return Gated(
            gates,
            np.array([value for _, value, _ in terms], np.float64),
            np.array([place[under] for under, _, _ in terms]),
            np.array([(*columns, one, one)[:2] for _, _, columns in terms]),
        )


def _dot(n: Any, matrix: np.ndarray) -> Any:
    """Accelerators multiply matrices in less than float32 unless they are told otherwise."""
    return jnp.dot(n, matrix, precision="highest") if isinstance(n, jax.Array) else n @ matrix


def _row(vector: np.ndarray, like: Any) -> Any:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def _apply(function: Any, channels: Any, chunk: int) -> Counts:
    """`function` of float channels [N, G], over any leading axes, in chunks on the host."""
    if isinstance(channels, jax.Array):
        return function(jnp.asarray(channels, jnp.float32))
    channels = np.asarray(channels)
    flat = channels.reshape(-1, channels.shape[-1])
    result = np.empty(len(flat))
    for start in range(0, len(flat), chunk):
        result[start : start + chunk] = function(flat[start : start + chunk].astype(np.float64))
    result = result.reshape(channels.shape[:-1])
    # Sums and products of whole numbers below 2^53 are exact in float64.
    return np.rint(result).astype(np.int64) if np.issubdtype(channels.dtype, np.integer) else result
