"""The algorithms by name. One file each, one function each, returning one `Algorithm`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from slimjax import registry
from slimjax.algorithms.base import Algorithm, Chosen
from slimjax.algorithms.bignas import bignas
from slimjax.algorithms.joslim import joslim
from slimjax.algorithms.jst import jst
from slimjax.algorithms.snet import snet
from slimjax.algorithms.tfnas import tfnas
from slimjax.algorithms.usnet import usnet
from slimjax.algorithms.wpc import wpc
from slimjax.errors import BadValue
from slimjax.step.engine import Engine

ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = MappingProxyType(
    {
        "bignas": bignas,
        "joslim": joslim,
        "jst": jst,
        "snet": snet,
        "tfnas": tfnas,
        "usnet": usnet,
        "wpc": wpc,
    }
)


def lookup(name: str) -> Callable[..., Algorithm]:
    """An algorithm's function: one of `ALGORITHMS`, or `package.module:name` of your own.

    Raises:
      BadValue: "name" is none; the message lists what there is.
    """
    found = registry.lookup(name, ALGORITHMS)
    if not callable(found):
        raise BadValue(
            "name", f"expected a function of an engine that returns an Algorithm; {name} is {found!r}."
        )
    return found


def make(name: str, engine: Engine, **options: Any) -> Algorithm:
    """The algorithm of a name. Raises: BadValue: no such name, or its function returns something else."""
    algorithm = lookup(name)(engine, **options)
    if not isinstance(algorithm, Algorithm):
        raise BadValue("name", f"expected {name} to return an Algorithm, got {algorithm!r}.")
    return algorithm


__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Chosen",
    "bignas",
    "joslim",
    "jst",
    "lookup",
    "make",
    "snet",
    "tfnas",
    "usnet",
    "wpc",
]
