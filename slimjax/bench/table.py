"""`slimjax bench table`: is the sum over a table's units what the whole network costs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from slimjax.checks import check, integer
from slimjax.cost import latency
from slimjax.errors import UserError
from slimjax.profiling import sweep
from slimjax.profiling.profile import ProfileRequest
from slimjax.workdir import architecture


def run(
    path: str, subnets: int, seed: int = 0, architectures: Sequence[str] = (), **fields: Any
) -> dict[str, Any]:
    """Compares the table with whole networks, measured or compiled as its entries were, on random subnets.

    Args:
      path: of the table.
      subnets: how many; the channels of groups and the options of choices are drawn evenly from the legal ones.
      architectures: files of subnets to take instead, of one network whose units the table has; two at least.
      fields: of `profile.ProfileRequest`: retries, timeout_seconds, processes, cache, reuse.

    Returns: `mape` (mean absolute error of the sum, a fraction of the whole), `spearman` (rank correlation), `bias`
    (median of sum over whole), the milliseconds of both by subnet, and where the networks' readings come from
    (`Readings.origin`).

    Raises:
      UserError: fewer than 2 subnets, or the table was imported, or is of another device than the attached one.
    """
    check("subnets", subnets, integer(2))
    check("seed", seed, integer(0))
    table = latency.load(path)
    if table.about["method"] == latency.IMPORTED:
        raise UserError(f"{path} was imported: there is nothing here to measure as its entries were.")
    own = {key: table.about[key] for key in ("network", "target", "batch", "repeats")}
    if files := architecture.load_all(architectures) if architectures else {}:
        own["network"] = dict(next(iter(files.values())).network)
        check("architectures", subnets := len(files), integer(2))
    request = ProfileRequest(**own, **fields)
    net = request.net()
    named = [file.subnet(net.space) for file in files.values()]
    rows = np.stack(named) if named else net.space.random(subnets, seed)
    tasks = [(sweep.WHOLE, tuple(row)) for row in rows.tolist()]
    with request.askers() as (hello, askers):
        if hello["device"] != table.about["device"]:
            raise UserError(
                f"{path} is of {table.about['device']}; this is {hello['device']}. Profile it here."
            )
        call = {"subnets": subnets, "seed": seed, "architectures": list(files)}
        readings = request.readings(hello, call, network=own["network"])
        sweep.sweep(tasks, askers, readings, request.retries, "compare", "network")
    readings.end()
    whole = np.array([readings.found[task]["median_ms"] for task in tasks])
    summed = net.latency(table)(rows)
    return {
        "table": path,
        **{key: table.about[key] for key in ("device", "method", "batch", "dtype")},
        "network": own["network"],
        "subnets": list(files) or subnets,
        "mape": float(np.abs(summed / whole - 1).mean()),
        "spearman": float(stats.spearmanr(summed, whole).statistic),
        "bias": float(np.median(summed / whole)),
        "whole_ms": whole.tolist(),
        "summed_ms": summed.tolist(),
        **readings.origin(),
    }
