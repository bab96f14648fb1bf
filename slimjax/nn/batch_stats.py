"""Batch-norm statistics as named collections: running averages, and calibration of any subnet.

A collection belongs to one subnet. Calibration starts it from nothing, feeds it training images in
training mode with frozen weights, and returns it; two subnets can never write to the same collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

Collection = Any
"""Pytree of float32 means and variances, shaped like the network's `batch_stats`."""

Collect = Callable[[Collection, Any, Mapping[str, jax.Array], int], Collection]
"""(old collection, subnet, batch, its number) -> the collection with the subnet's entries replaced by the batch's."""


def blend(old: Collection, new: Collection, rate: float | jax.Array) -> Collection:
    """old + rate * (new - old): rate 0.1 is a running average (PyTorch's momentum 0.1, Flax's 0.9).

    Entries that `new` left alone stay bit-identical.
    """
    return jax.tree.map(lambda a, b: a + rate * (b - a), old, new)


def calibrate(
    collect: Collect,
    like: Collection,
    subnets: Mapping[str, Any],
    batches: Iterable[Mapping[str, jax.Array]],
) -> dict[str, Collection]:
    """Exact statistics for every named subnet, each on its own, in one pass over the batches.

    The cumulative (arithmetic) average of per-batch means and variances, each batch weighted by its
    number of images: stats_k = stats_{k-1} + (batch_k - stats_{k-1}) n_k / (n_1 + ... + n_k).

    Paper: US-Net, section 3.2 (post-statistics of batch normalisation).
    Differs: from the released code, whose calibration leaves private statistics at their initial value and
    averages the tail's over all widths. Here every subnet starts from zero, runs in training mode and
    writes to its own collection only; there is no other way to call this.

    Args:
      collect: one forward pass in training mode, typically jitted.
      like: shapes and dtypes of one collection of the network.
      subnets: name to whatever `collect` takes as a subnet.
      batches: training images, each a mapping with "image" [n, ...]; weights are frozen by construction.

    Raises:
      ValueError: if there is no batch.
    """
    stats = {name: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like) for name in subnets}
    images = 0
    for number, batch in enumerate(batches):
        count = batch["image"].shape[0]
        images += count
        for name, subnet in subnets.items():
            new = collect(stats[name], subnet, batch, number)
            stats[name] = _blend(stats[name], new, count / images)
    if images == 0:
        raise ValueError("calibration got no batch: batch statistics of zero images are undefined.")
    return stats


_blend = jax.jit(blend)
