"""What wrote a run: slimjax, what it stands on, and the schema of the files."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import jax

import slimjax
from slimjax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

SCHEMA = 3
"""Of all that a run keeps in its directory: config, state, logs, results. It rises when older runs can no longer be
read. Before schema 2 nothing but the checkpoints had one."""


def versions() -> dict[str, str]:
    """Returns what a number may depend on: versions of Python and packages, platform, devices."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "platform": device.platform,
        "device": f"{jax.device_count()} x {device.device_kind}",
    }


def stamp() -> dict[str, Any]:
    """Returns what is written beside anything that another version may read: the schema and slimjax's version."""
    return {"schema": SCHEMA, "slimjax": slimjax.__version__}


def check_schema(where: object, found: Mapping[str, Any]) -> None:
    """Refuses what was written with another schema.

    Args:
      where: a path, for the message.
      found: what the writer said of itself: `stamp`, and the version of "jax" if it is there.

    Raises:
      UserError: says which version wrote it, and what to do.
    """
    if found.get("schema") == SCHEMA:
        return
    writer = found.get("slimjax", "0.1.0 or earlier")
    beside = f" with jax {found['jax']}" if "jax" in found else ""
    raise UserError(
        f"{where} was written by slimjax {writer}{beside} (schema {found.get('schema', 'none')}); this is slimjax "
        f"{slimjax.__version__}, which reads schema {SCHEMA} only. Take another workdir, or the slimjax that wrote it."
    )
