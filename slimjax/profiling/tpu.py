"""TPUs without a TPU: the real compiler, devices that are described but not there.

`pip install libtpu` works on any x86-64 Linux. What comes out is a *compiler estimate*, not a measurement.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax.experimental import topologies

from slimjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of TPU: its smallest topology with a whole host, and the accelerator type that libtpu asks for."""

    topology: str
    accelerator: str


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "tpu-v4": Target("v4:2x2x1", "v4-8"),
        "tpu-v5e": Target("v5e:2x2", "v5litepod-4"),
        "tpu-v5p": Target("v5p:2x2x1", "v5p-8"),
        "tpu-v6e": Target("v6e:2x2", "v6e-4"),
    }
)


def is_attached() -> bool:
    """Whether this machine has TPU chips (their device files exist), without waking them."""
    return any(os.path.exists(path) for path in ("/dev/accel0", "/dev/vfio/0"))


def compile_only_devices(target: str) -> list[Any]:
    """Devices that programs can be compiled for, but not run on. JAX itself then runs on the CPU.

    Call before anything touches a device.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--target {target}: the TPU compiler is not installed: pip install -e '.[tpu-compile]'."
        )
    wanted = TARGETS[target]
    # Without these, libtpu looks for the machine's own chips and metadata, and waits for answers.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", TPU_ACCELERATOR_TYPE=wanted.accelerator
    )
    jax.config.update("jax_platforms", "cpu")
    return list(topologies.get_topology_desc(platform="tpu", topology_name=wanted.topology).devices)


def estimated_cycles(program: Any) -> int:
    """The compiler's estimate for a compiled TPU program: cycles of its entry computation, summed.

    Loops count once, whatever their trips: do not estimate programs that spend their time in one.
    """
    entry = program.as_text().split("\nENTRY ", 1)[1].split("\n}", 1)[0]
    return sum(int(cycles) for cycles in re.findall(r'"estimated_cycles":"(\d+)"', entry))
