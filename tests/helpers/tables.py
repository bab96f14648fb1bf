"""A latency table that needs no measurement."""

import numpy as np

from slimjax.cost import units
from slimjax.cost.latency import ABOUT, Entry, LatencyTable
from slimjax.profiling.profile import choose_grids
from slimjax.supernet import Supernet


def save_table(path, net: Supernet, model: str = "resnet8", **network) -> str:
    """Milliseconds that rise with a unit's first axis only, unlike its MACs. `network`: as in `supernet.named`."""
    entries = {}
    for key, grid in choose_grids(units.divide(net.records), net, points=1_000_000).items():
        first = np.ix_(*grid)[0] if grid else 0.0
        shape = [len(axis) for axis in grid]
        entries[key] = Entry(grid, np.broadcast_to(0.1 + 0.25 * first, shape), np.zeros(shape))
    about = dict.fromkeys(ABOUT, "made up") | {"network": {"name": model, **network}, "versions": {}}
    LatencyTable(about, 0.05, entries).save(path)
    return str(path)
