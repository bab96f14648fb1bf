"""`slimjax bench costs`: how long it takes to cost many subnets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from slimjax import supernet
from slimjax.checks import check, integer
from slimjax.nn.space import Subnet


def run(name: str, subnets: int) -> dict[str, Any]:
    """Seconds for MACs, parameters and peak memory of random subnets on the host; drawing them is not counted."""
    check("subnets", subnets, integer(1))
    net = supernet.named(name)
    rows = net.space.random(subnets, seed=0)
    functions: dict[str, Callable[[Subnet], Any]] = {
        "macs": net.macs,
        "params": net.params,
        "peak_memory": net.peak_memory,
    }
    seconds = {}
    for what, cost in functions.items():
        began = time.perf_counter()
        cost(rows)
        seconds[what] = time.perf_counter() - began
    return {"model": name, "subnets": subnets, "seconds": sum(seconds.values()), "seconds_by_cost": seconds}
