"""Devices, processes, and where arrays live: one mesh axis, `data`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from slimjax.errors import UserError

DATA = "data"
SHARDED, REPLICATED = PartitionSpec(DATA), PartitionSpec()
"""How an array lies on a mesh: its first axis over the devices, or all of it on each."""


def initialize_processes() -> None:
    """Joins the other processes of a launch, if there is one; call before anything touches a device.

    `launch/local.sh` sets SLIMJAX_COORDINATOR (host:port), SLIMJAX_PROCESSES and SLIMJAX_PROCESS_ID; on TPU
    slices SLIMJAX_COORDINATOR=auto lets JAX find the others itself.
    """
    coordinator = os.environ.get("SLIMJAX_COORDINATOR")
    if not coordinator:
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    timeout = int(os.environ.get("SLIMJAX_TIMEOUT", "300"))
    jax.distributed.initialize(
        coordinator,
        num_processes=int(os.environ["SLIMJAX_PROCESSES"]),
        process_id=int(os.environ["SLIMJAX_PROCESS_ID"]),
        initialization_timeout=timeout,
    )


def make_mesh(devices: int | None = None, available: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over the first `devices` devices (all by default).

    Args:
      available: to choose from, perhaps described only, to compile for. None: what JAX sees here.
    """
    available = jax.devices() if available is None else available
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise UserError(f"devices: expected 1 to {len(available)} (what JAX sees here), got {count}.")
    return Mesh(np.array(available[:count]), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, REPLICATED)


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis over the devices."""
    return NamedSharding(mesh, SHARDED)


def abstract(tree: Any, sharding: NamedSharding) -> Any:
    """Shapes of arrays that lie as `sharding` says."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def put_batch(mesh: Mesh, rows: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays from this process's rows of a batch."""
    sharding = batch_sharded(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in rows.items()}


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """The same value on every device; every process must hold equal values."""
    sharding = replicated(mesh)

    def put(value: Any) -> jax.Array:
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)


def agree(flag: bool) -> bool:
    """Whether `flag` is true on every process. All must call it, in the same order."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).all())


def from_leader(tree: Any) -> Any:
    """Host arrays as process 0 has them, bit for bit, on every process. All must call it, in the same order.

    What a process has decides the shapes and dtypes there; they must be those of process 0.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: without 64-bit types, JAX would round float64.
    raw = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    sent = np.asarray(multihost_utils.broadcast_one_to_all(raw), np.uint8)
    parts = np.split(sent, np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
    alike = zip(parts, leaves, strict=True)
    restored = [part.copy().view(leaf.dtype).reshape(leaf.shape) for part, leaf in alike]
    return jax.tree.unflatten(structure, restored)


def fetch(tree: Any) -> Any:
    """Replicated device arrays as host arrays, on every process."""
    return jax.tree.map(lambda value: np.asarray(value.addressable_data(0)), tree)


def fetch_rows(arrays: Sequence[jax.Array]) -> list[np.ndarray]:
    """Arrays of equal layout, split over the devices or replicated, as host arrays on every process.

    All processes must call it, in the same order; they exchange what they have once.
    """
    local = jax.device_get([[(s.index, s.data) for s in array.addressable_shards] for array in arrays])
    if arrays[0].is_fully_replicated:
        return [shards[0][1] for shards in local]
    host = np.zeros((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for found, shards in zip(host, local, strict=True):
        for index, value in shards:
            found[index] = value
    return list(host if jax.process_count() == 1 else multihost_utils.process_allgather(host).sum(0))
