"""TPUs without a TPU: the real compiler, devices that are described but not there.

`pip install libtpu` works on any x86-64 Linux. What comes out is a *compiler estimate*, not a measurement.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax.experimental import topologies

from slimjax.errors import UserError
from slimjax.profiling.chips import CHIPS, Chip

TARGETS: Mapping[str, str] = MappingProxyType(
    {"tpu-v4": "v4:2x2x1", "tpu-v5e": "v5e:2x2", "tpu-v5p": "v5p:2x2x1", "tpu-v6e": "v6e:2x2"}
)
"""Kinds of TPU by their smallest topology with a whole host."""

# libtpu asks for that topology's; it serves the larger ones too.
_ACCELERATORS = MappingProxyType({"v4": "v4-8", "v5e": "v5litepod-4", "v5p": "v5p-8", "v6e": "v6e-4"})
# Else each of a v4's two cores is a device of its own, unlike where there is a TPU.
_OPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType({"v4": {"chip_config_name": "megacore"}})


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some chips of one kind, wired as a box of these sides."""

    kind: str
    sides: tuple[int, ...]

    @classmethod
    def parse(cls, topology: str) -> Slice:
        """From a topology such as "v5e:4x4". What shapes there are, libtpu knows (`compile_only_devices`).

        Raises:
          UserError: no such kind, a shape of another dimension, or more chips than a slice can have.
        """
        match = re.fullmatch(rf"({'|'.join(CHIPS)}):([1-9]\d*(?:x[1-9]\d*)*)", topology)
        if match is None:
            raise _no_slice(topology, f"KIND:SHAPE with KIND one of {', '.join(CHIPS)}")
        found = cls(match[1], tuple(int(side) for side in match[2].split("x")))
        wanted = found.chip
        if len(found.sides) != wanted.dimensions:
            raise _no_slice(topology, f"a shape of {wanted.dimensions} sides for {found.kind}")
        if found.chips > wanted.most_chips:
            raise _no_slice(topology, f"at most {wanted.most_chips:,} chips of {found.kind}")
        return found

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return math.prod(self.sides)

    def doubled(self) -> Slice | None:
        """With the shortest side (the last of them) twice as long; None: slices are not that large."""
        shortest = max(i for i, side in enumerate(self.sides) if side == min(self.sides))
        sides = tuple(side * (1 + (i == shortest)) for i, side in enumerate(self.sides))
        larger = Slice(self.kind, sides)
        return larger if larger.chips <= self.chip.most_chips else None

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.sides))}"


def versions() -> dict[str, str]:
    """Of the TPU compiler, on which estimates depend."""
    return {"libtpu": importlib.metadata.version("libtpu")}


def is_attached() -> bool:
    """Whether this machine has TPU chips (their device files exist), without waking them."""
    return any(os.path.exists(path) for path in ("/dev/accel0", "/dev/vfio/0"))


def compile_only_devices(topology: str) -> list[Any]:
    """A slice's chips, that programs can be compiled for, but not run on. JAX itself then runs on the CPU.

    Call before anything touches a device.

    Raises:
      UserError: no such slice, or libtpu is not installed.
    """
    wanted = Slice.parse(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"{topology}: the TPU compiler is not installed: pip install -e '.[tpu-compile]'.")
    # Without the first three, libtpu looks for the machine's own chips and metadata, and waits for answers;
    # without the last it serves one process at a time.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE=_ACCELERATORS[wanted.kind],
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    jax.config.update("jax_platforms", "cpu")
    options: dict[str, Any] = dict(_OPTIONS.get(wanted.kind, {}))
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except jax.errors.JaxRuntimeError as error:
        raise _no_slice(topology, "a shape that libtpu knows", str(error).splitlines()[0]) from error
    return list(found.devices)


def _no_slice(topology: str, expected: str, reason: str = "") -> UserError:
    examples = ", ".join(TARGETS.values())
    return UserError(
        f"topology {topology!r}: expected {expected}, such as v5e:4x4 ({examples} are one host). {reason}".rstrip()
    )
