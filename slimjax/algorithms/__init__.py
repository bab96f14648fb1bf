"""The algorithms by name. One file each, one function each, returning one `Algorithm`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from slimjax.algorithms.base import Algorithm, Chosen
from slimjax.algorithms.bignas import bignas
from slimjax.algorithms.joslim import joslim
from slimjax.algorithms.snet import snet
from slimjax.algorithms.usnet import usnet

ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = MappingProxyType(
    {"bignas": bignas, "joslim": joslim, "snet": snet, "usnet": usnet}
)

__all__ = ["ALGORITHMS", "Algorithm", "Chosen", "bignas", "joslim", "snet", "usnet"]
