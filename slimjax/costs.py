"""What a subnet costs: multiply-accumulates and parameters, in closed form from layer records.

Pure host functions of (records, space, subnets), vectorised over any leading axes of `subnets` [..., G].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from slimjax.layers import Axis
from slimjax.records import ArrayRecord, Records
from slimjax.widths import Group, Subnet, WidthSpace

Counts = np.ndarray
"""int64 [...]: one count per subnet."""


def macs(records: Records, space: WidthSpace, subnets: Subnet, *, pooling: bool = True) -> Counts:
    """Multiply-accumulates of one image: kernels of convolutions and dense layers.

    One MAC is one multiply-add. Biases, norms and activations are not counted.

    Args:
      pooling: count average pooling as one MAC per input element, as the Slimmable Networks code does
        (its published FLOPs include it); the CIFAR ResNet figures leave it out.
    """
    size = _sizer(space, subnets)
    total = np.zeros(np.shape(subnets)[:-1], np.int64)
    for record in records:
        if record.kind in ("GlobalPool", "AveragePool"):
            total = total + pooling * math.prod(record.in_size) * size(record.in_group)
        for array in record.arrays:
            if array.is_kernel:
                total = total + math.prod(record.out_size) * _elements(array, size)
    return total


def params(records: Records, space: WidthSpace, subnets: Subnet, *, norms: bool = True) -> Counts:
    """Active parameters: kernels, biases and, with `norms`, one gamma and beta per normalised channel."""
    size = _sizer(space, subnets)
    counted = ("params", "affine") if norms else ("params",)
    # Keyed by path: a layer that is called twice owns its arrays once.
    arrays = {(record.path, array.name): array for record in records for array in record.arrays}
    total = np.zeros(np.shape(subnets)[:-1], np.int64)
    for array in arrays.values():
        if array.collection in counted:
            total = total + _elements(array, size)
    return total


def _elements(array: ArrayRecord, size: Callable[[Axis], np.ndarray | int]) -> np.ndarray | int:
    return math.prod(size(axis) for axis in array.axes)


def _sizer(space: WidthSpace, subnets: Subnet) -> Callable[[Axis], np.ndarray | int]:
    """A function from an axis to its active length, int or int64 [...]."""
    columns = np.asarray(subnets, np.int64)

    def size(axis: Axis) -> np.ndarray | int:
        if not isinstance(axis, Group):
            return axis
        return axis.channels if axis.fixed else axis.entries(columns[..., space.index[axis.name]])

    return size
