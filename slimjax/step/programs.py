"""Compiled programs by key: bounded in number, counted, and compiled on another thread where that helps."""

from __future__ import annotations

import collections
import functools
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from slimjax.step.state import Tree

CPU_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_ELTWISE",
    }
)
"""What makes training programs quick on CPUs (docs/results/cpu_speed.md): YNNPACK for reductions and
elementwise chains, Eigen for convolutions. YNNPACK's maximum of NaN and 0 is 0, so there a NaN may be seen
in gradients only, not in the loss. The same flag in XLA_FLAGS takes precedence."""


class Call(NamedTuple):
    """A call of a program.

    Args:
      key: programs of equal keys are one.
      make: gives the jitted function that is compiled if there is no program of the key yet.
      arguments: arrays, or shapes with shardings.
    """

    key: Hashable
    make: Callable[[], jax.stages.Wrapped]
    arguments: tuple[Tree, ...]


class ProgramCounts(NamedTuple):
    """Programs that are alive, and how many were compiled so far."""

    live: int
    compiled: int


class Programs:
    """A least-recently-used cache of compiled programs.

    Args:
      limit: most programs alive at a time.
      platform: of the devices that they run on.
    """

    def __init__(self, limit: int, platform: str) -> None:
        self._limit = limit
        self._options = compiler_options(platform)
        self._live: collections.OrderedDict[Hashable, jax.stages.Compiled] = collections.OrderedDict()
        self._behind: dict[Hashable, Future[jax.stages.Compiled]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile")  # starts when used
        self.compiles = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._live

    def run(self, call: Call) -> Tree:
        """Calls the program, which is compiled first if it is not alive."""
        return self.get(call)(*call.arguments)

    def get(self, call: Call) -> jax.stages.Compiled:
        """The program, not called."""
        if call.key not in self._live:
            behind = self._behind.pop(call.key, None)
            self._keep(call.key, self._compile(call) if behind is None else behind.result())
        self._live.move_to_end(call.key)
        return self._live[call.key]

    def compile_behind(self, call: Call) -> bool:
        """Whether the program, which is not alive yet, has been compiled; another thread is at it."""
        if call.key not in self._behind:
            while len(self._behind) >= self._limit:  # nobody waits for the oldest any more
                self._behind.pop(next(iter(self._behind))).cancel()
            # Shapes, because the arrays may be donated before the compiler gets to them.
            shapes = call._replace(arguments=jax.tree.map(_shape, call.arguments))
            self._behind[call.key] = self._pool.submit(self._compile, shapes)
        return self._behind[call.key].done()

    def counts(self) -> ProgramCounts:
        """How many are alive, and how many were compiled."""
        return ProgramCounts(len(self), self.compiles)

    def live(self) -> list[tuple[Hashable, jax.stages.Compiled]]:
        """Keys and compiled programs, the least recently used first."""
        return list(self._live.items())

    def _compile(self, call: Call) -> jax.stages.Compiled:
        return call.make().lower(*call.arguments).compile(self._options)

    def _keep(self, key: Hashable, program: jax.stages.Compiled) -> None:
        self.compiles += 1
        self._live[key] = program
        while len(self._live) > self._limit:
            self._live.popitem(last=False)


def compiler_options(platform: str) -> dict[str, str | bool]:
    """XLA's options for training programs on a platform."""
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = CPU_OPTIONS if platform == "cpu" else {}
    return {name: value for name, value in wanted.items() if name not in flags and _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: str) -> bool:
    """Whether this version of XLA takes an option; experimental ones come and go."""
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def outputs(program: jax.stages.Compiled) -> Tree:
    """Shapes and shardings of what a program returns, for programs that take it as their argument."""
    return jax.tree.map(
        lambda info: jax.ShapeDtypeStruct(info.shape, info.dtype, sharding=info.sharding), program.out_info
    )


def peak_bytes(programs: Iterable[tuple[jax.stages.Compiled, Tree]], alive: Tree) -> int:
    """Most bytes on a device while programs run one after the other, by the compiler's account.

    Args:
      programs: with their arguments.
      alive: arrays that exist all the time, whether or not they are among a program's arguments.
    """
    return max(_bytes(program, arguments, alive) for program, arguments in programs)


def _bytes(program: jax.stages.Compiled, arguments: Tree, alive: Tree) -> int:
    counted = {id(leaf) for leaf in jax.tree.leaves(arguments)}
    others = [leaf for leaf in jax.tree.leaves(alive) if id(leaf) not in counted]
    analysis: Tree = program.memory_analysis()  # on every platform that slimjax knows
    used = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return int(used - analysis.alias_size_in_bytes + sum(map(_device_bytes, others)))


def _shape(value: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = value.sharding if isinstance(value, jax.Array) else None
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


def _device_bytes(leaf: jax.Array) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
