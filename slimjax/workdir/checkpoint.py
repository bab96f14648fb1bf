"""Checkpoints that are verified when they are read, and that fall back to an older step when damaged.

Orbax does the storage: asynchronous, sharded, atomic, on local disks and on buckets. Five things it leaves
open (all tried with 0.12.8) are closed here:

- flipped bytes are restored silently  -> a crc32 per leaf, checked after every restore;
- dtypes are cast silently             -> shapes and dtypes are compared before orbax is asked;
- an older step is never tried         -> `Checkpointer.restore` walks back, and says so in the log;
- a step not newer than the latest one is skipped without a word -> see `Checkpointer.save`;
- deleted steps pile up in `todelete_subdir` -> it is emptied.

A step on disk is `STEP/state` (the tree as plain nested dicts, readable by anyone's orbax) and `STEP/meta`
(JSON: schema, version, step, device and process counts, an entry per leaf, what the caller adds, a digest over all).
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils

from slimjax.errors import RunError, UserError
from slimjax.workdir.versions import check_schema, stamp

PyTree = Any
Leaves = dict[str, Any]  # "params/conv/kernel" -> array or ShapeDtypeStruct

RESERVED = frozenset({"schema", "slimjax", "step", "device_count", "process_count", "leaves", "digest"})
TRASH = "trash"
NOT_HASHED = "sharded over processes: not hashed"

logger = logging.getLogger(__name__)


class CheckpointError(RunError):
    """A checkpoint could not be written, or none of those that exist can be read."""


class NonFiniteError(RunError):
    """A tree with NaN or infinite parameters was about to be saved."""


class Restored(NamedTuple):
    """What `Checkpointer.restore` found: step, tree (structured like the abstract one), whole meta."""

    step: int
    tree: PyTree
    meta: dict[str, Any]


class Checkpointer:
    """Saves and restores one training run's checkpoints; a context manager.

    With several processes every process makes the same calls in the same order; the directory is shared.

    Args:
      directory: local path or bucket (anything `epath` opens, such as `gs://...`).
      keep: how many of the newest steps stay.
      read_only: look at steps that another program may be writing; nothing is created or cleaned.
    """

    def __init__(self, directory: str | epath.PathLike, *, keep: int = 3, read_only: bool = False) -> None:
        self.directory = epath.Path(directory)
        self._read_only = read_only
        self._damaged: set[int] = set()
        self._closed = False
        self._empty_trash()
        options = _options(self.directory, keep, read_only)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(
        self, step: int, tree: PyTree, meta: Mapping[str, Any] | None = None, *, require_finite: bool = True
    ) -> None:
        """Starts saving `tree` as `step`; the arrays may be donated as soon as this returns.

        The directory always holds one trajectory: steps from `step` on, which a run that was rewound (or that
        fell back over a damaged step) left behind, are dropped first. So saving a step twice replaces it.

        Args:
          step: number of finished updates.
          tree: pytree of jax or numpy arrays of any numeric dtype, keys as raw uint32 data.
          meta: what else to remember, JSON only.
          require_finite: refuse a NaN or infinity in any leaf whose path has a part ending in "params" or "structure".

        Raises:
          NonFiniteError: naming the leaves.
          CheckpointError: the previous save, which runs in the background, had failed; or this is read-only.
        """
        if self._read_only:
            raise CheckpointError(f"{self.directory} was opened read-only")
        leaves = _flatten(tree)
        _require_arrays(leaves)
        if require_finite:
            _require_finite(leaves)
        record = seal(_record(step, leaves, meta or {}))
        self.wait()
        self._drop_steps(step)
        self._empty_trash()
        stored = {path: leaf for path, leaf in leaves.items() if leaf.size}
        args = ocp.args.Composite(state=ocp.args.StandardSave(_nest(stored)), meta=ocp.args.JsonSave(record))
        self._guard_write(lambda: self._manager.save(step, args=args, force=True))

    def restore(self, abstract_tree: PyTree, step: int | None = None) -> Restored | None:
        """Returns the newest sound step, or exactly `step`; None if there is no step at all.

        Args:
          abstract_tree: `jax.ShapeDtypeStruct` leaves whose shardings say where the arrays go; the number of
            devices need not be the one that saved. Without a sharding a leaf goes to the first local device.

        Raises:
          UserError: saved leaves and `abstract_tree` differ, another schema's slimjax wrote them, or no such `step`.
          CheckpointError: steps exist, but each is damaged. A run never starts from scratch silently.
        """
        wanted = _flatten(abstract_tree)
        failures: dict[int, str] = {}
        for candidate in self._candidates(step):
            found = self._attempt(candidate, wanted)
            if not isinstance(found, str):
                leaves, meta = found
                treedef = jax.tree.structure(abstract_tree)
                tree = jax.tree.unflatten(treedef, [leaves[path] for path in wanted])
                return Restored(candidate, tree, meta)
            logger.warning("checkpoint %s/%d is damaged: %s", self.directory, candidate, found)
            failures[candidate] = found
            self._damaged.add(candidate)
        if failures:
            reasons = "".join(f"\n  step {failed}: {why}" for failed, why in failures.items())
            raise CheckpointError(f"no checkpoint in {self.directory} can be restored:{reasons}")
        return None

    def latest_step(self) -> int | None:
        """Returns the newest step that is listed, sound or not."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises: CheckpointError if it failed."""
        self._guard_write(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits and lets go of threads. Raises: CheckpointError if the last save failed."""
        if self._closed:
            return
        self._closed = True
        self._guard_write(self._manager.close)
        self._empty_trash()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointError:
            if error is None:
                raise
            logger.exception("the last save failed too")  # must not hide the error that is on its way

    def _candidates(self, step: int | None) -> list[int]:
        steps = sorted(self._manager.all_steps(), reverse=True)
        if step is None:
            return steps
        if step not in steps:
            raise UserError(f"{self.directory} has no checkpoint of step {step}; it has {steps or 'none'}")
        return [step]

    def _attempt(self, step: int, wanted: Leaves) -> tuple[Leaves, dict[str, Any]] | str:
        """Returns leaves and meta, or why the step is damaged: the same outcome on every process."""
        found: tuple[Leaves, dict[str, Any]] | str
        try:
            found = self._read(step, wanted)
        except UserError:
            raise
        except Exception as error:  # a truncated file makes orbax raise a bare Exception
            found = _explain(error, wanted)
        everywhere = _true_everywhere(not isinstance(found, str))
        return found if everywhere or isinstance(found, str) else "another process could not read it"

    def _read(self, step: int, wanted: Leaves) -> tuple[Leaves, dict[str, Any]]:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        _check_meta(meta, f"{self.directory}/{step}")
        _check_same_leaves(meta["leaves"], wanted, f"{self.directory}/{step}")
        stored = {path: _abstract(leaf) for path, leaf in wanted.items() if leaf.size}
        args = ocp.args.Composite(state=ocp.args.StandardRestore(_nest(stored)))
        state = self._manager.restore(step, args=args).state if stored else {}
        leaves = traverse_util.flatten_dict(state, sep="/")
        for path in wanted.keys() - stored.keys():  # orbax does not store arrays without elements
            empty = _abstract(wanted[path])
            leaves[path] = jnp.zeros(empty.shape, empty.dtype, device=empty.sharding)
        _check_sums(meta["leaves"], leaves)
        return leaves, meta

    def _drop_steps(self, step: int) -> None:
        for old in self._manager.all_steps():
            if old >= step or old in self._damaged:
                logger.warning("dropping checkpoint %s/%d before step %d is saved", self.directory, old, step)
                self._manager.delete(old)

    def _empty_trash(self) -> None:
        """Removes what orbax renamed: a kill during this leaves no half step listed, and no disk fills up."""
        trash = self.directory / TRASH
        mine = jax.process_index() == 0 and not self._read_only and _is_local(self.directory)
        if mine and trash.exists():
            trash.rmtree()

    def _guard_write(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:
            what = f"a checkpoint could not be written to {self.directory}"
            raise CheckpointError(f"{what}: {type(error).__name__}: {error}") from error


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `record` as JSON will give it back, with a digest over everything else in it.

    Every schema keeps this digest, so that a damaged meta is told from one that another slimjax wrote.
    """
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != "digest"}))
    return {**plain, "digest": zlib.crc32(json.dumps(plain, sort_keys=True).encode())}


def _options(directory: epath.Path, keep: int, read_only: bool) -> ocp.CheckpointManagerOptions:
    return ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        todelete_subdir=TRASH if _is_local(directory) else None,
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
        enable_async_checkpointing=True,
    )


def _is_local(directory: epath.Path) -> bool:
    return "://" not in str(directory)


def _flatten(tree: PyTree) -> Leaves:
    """Returns leaves by path, in tree order. Raises: ValueError if two leaves have one path.

    A slash in a key, as in a group's name, is a colon in the path: it does not divide it.
    """
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {"/".join(map(_part, path)): leaf for path, leaf in pairs}
    if len(leaves) < len(pairs):
        raise ValueError("two leaves have the same path: two keys print alike")
    return leaves


def _part(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True).replace("/", ":")


def _nest(leaves: Leaves) -> dict[str, Any]:
    nested: dict[str, Any] = traverse_util.unflatten_dict(leaves, sep="/")
    return nested


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _require_arrays(leaves: Leaves) -> None:
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(
                f"{path} is a {type(leaf).__name__}; only arrays can be saved, put the rest into meta"
            )
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{path} is a typed random key; save jax.random.key_data of it")


def _require_finite(leaves: Leaves) -> None:
    """Raises: NonFiniteError naming each parameter leaf with a NaN or an infinity. Runs on the device."""
    params = {path: leaf for path, leaf in leaves.items() if _is_param(path) and _is_float(leaf)}
    finite: list[bool] = _all_finite(list(params.values())).tolist() if params else []
    bad = [path for path, ok in zip(params, finite, strict=True) if not ok]
    if bad:
        raise NonFiniteError(f"not saved, NaN or infinity in {', '.join(bad)}")


def _is_param(path: str) -> bool:
    return any(part.endswith(("params", "structure")) for part in path.split("/"))


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def _record(step: int, leaves: Leaves, meta: Mapping[str, Any]) -> dict[str, Any]:
    if taken := RESERVED & meta.keys():
        raise ValueError(f"meta keys {sorted(taken)} are taken by the checkpoint itself")
    return {
        **meta,
        **stamp(),
        "step": step,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "leaves": {path: _describe(leaf) | _hashed(leaf) for path, leaf in leaves.items()},
    }


def _describe(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _hashed(leaf: Any) -> dict[str, Any]:
    crc = _checksum(leaf)
    return {"crc32": crc} if crc is not None else {"crc32": None, "note": NOT_HASHED}


def _checksum(leaf: Any) -> int | None:
    """Returns the crc32 of dtype, shape and bytes; None if no single process holds the whole leaf."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return None
    array = np.asarray(leaf)
    return zlib.crc32(array.tobytes(), zlib.crc32(f"{array.dtype}{array.shape}".encode()))


def _check_meta(meta: dict[str, Any], where: str) -> None:
    if seal(meta)["digest"] != meta.get("digest"):
        raise CheckpointError("meta: checksum mismatch")
    check_schema(where, meta)


def _check_same_leaves(saved: dict[str, Any], wanted: Leaves, where: str) -> None:
    """Raises: UserError with one line (expected, got) per leaf that is not the same on both sides."""
    lines = [
        f"\n  {path}: expected {_spell(wanted.get(path))}, got {_spell(saved.get(path))}"
        for path in sorted(wanted.keys() | saved.keys())
        if _spell(wanted.get(path)) != _spell(saved.get(path))
    ]
    if lines:
        hint = "\nUse the config that trained it, or another workdir."
        raise UserError(f"{where} holds a different network or optimizer:{''.join(lines)}{hint}")


def _spell(leaf: Any) -> str:
    """Returns `float32[3,3]`, from an array, an abstract array or a meta entry; `nothing` for None."""
    if leaf is None:
        return "nothing"
    entry = leaf if isinstance(leaf, dict) else _describe(leaf)
    return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"


def _check_sums(saved: dict[str, Any], leaves: Leaves) -> None:
    bad = [path for path, leaf in leaves.items() if _differs(saved[path]["crc32"], _checksum(leaf))]
    if bad:
        raise CheckpointError(f"checksum mismatch in {', '.join(bad)}")


def _explain(error: Exception, paths: Iterable[str]) -> str:
    """Returns one line: the leaves that orbax spells somewhere in its message, and how the message begins."""
    text = str(error)
    dotted = {path: path.replace("/", ".") for path in paths}
    named = [path for path, name in dotted.items() if f"'{name}/" in text or f'"{name}/' in text]
    where = f"{', '.join(named)}: " if named else ""
    return f"{where}{type(error).__name__}: {text.partition(chr(10))[0][:300]}"


def _differs(saved: int | None, read: int | None) -> bool:
    return saved is not None and read is not None and saved != read


def _true_everywhere(here: bool) -> bool:
    """Returns whether it is true on every process: all must take the same branch, or they wait for ever."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.asarray(here))))
