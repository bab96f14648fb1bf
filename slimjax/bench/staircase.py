"""`slimjax bench staircase`: what a search gains that knows how a device's latency rises in steps.

Nothing is trained. Joslim's optimiser searches a table's network twice, by MACs and by the table, with a made-up loss
that rises smoothly as MACs are lost. So every subnet of as many MACs is as good, and those of a latency run are the
ones that the device computes without waste.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from slimjax import supernet
from slimjax.budgets import MACS, Resource
from slimjax.checks import check, integer
from slimjax.cost import latency
from slimjax.search import bayes, pareto
from slimjax.search.bayes_options import BayesOptions
from slimjax.supernet import Supernet
from slimjax.vectors import WidthVectors

NEAR = 5
"""Neighbours in MACs whose mean latency is that of a subnet of as many."""


def run(path: str, trials: int = 100, seeds: int = 3, cost_model: str = "exact") -> dict[str, Any]:
    """Searches by MACs and by milliseconds.

    Args:
      path: of a latency table.
      trials: of each search, with its first ones, which have one width for all groups.
      cost_model: of `search.bayes_options.BayesOptions`: "exact" sees the steps, "gp" a smooth surface.

    Returns: medians over seeds of the latency of the subnets on the front by milliseconds, over that of subnets of as
    many MACs: `ratio_to_macs` of the search by MACs, `ratio_to_uniform` of uniform widths; both by seed, too.
    """
    check("trials", trials, integer(bayes.PRIOR_POINTS + 2))
    check("seeds", seeds, integer(1))
    table = latency.load(path)
    net = supernet.named(**table.about["network"])
    options = BayesOptions(cost_model=cost_model)
    runs = [_compared(net, path, trials, seed, options) for seed in range(seeds)]
    return {
        "table": path,
        **{key: table.about[key] for key in ("network", "device", "method", "batch", "dtype")},
        "trials": trials,
        "cost_model": cost_model,
        **{key: statistics.median(found[key] for found in runs) for key in runs[0]},
        "by_seed": runs,
    }


def _compared(net: Supernet, path: str, trials: int, seed: int, options: BayesOptions) -> dict[str, float]:
    by_ms = Resource("latency_ms", path)
    milliseconds = by_ms.cost(net)
    on_macs, on_ms = (_visited(net, resource, trials, seed, options) for resource in (MACS, by_ms))
    found = on_ms[pareto.front(np.stack([_loss(net, on_ms), milliseconds(on_ms)], 1))]
    space = net.space
    uniform = np.array(
        [space.uniform(width) for width in np.linspace(space.min_width, space.max_width, trials)]
    )

    def ratio(others: np.ndarray) -> float:
        """Mean over the front of its latency over that of others of as many MACs."""
        macs, ms = net.macs(others), milliseconds(others)
        nearest = np.argsort(np.abs(macs - net.macs(found)[:, None]), axis=1)[:, :NEAR]
        return float(np.mean(milliseconds(found) / ms[nearest].mean(1)))

    return {"ratio_to_macs": ratio(on_macs), "ratio_to_uniform": ratio(uniform)}


def _visited(net: Supernet, resource: Resource, trials: int, seed: int, options: BayesOptions) -> np.ndarray:
    """The subnets int32 [trials, G] that Joslim's optimiser visits."""
    vectors = WidthVectors(net, resource)
    cost = lambda widths: vectors.cost(vectors.subnets(widths))  # noqa: E731
    widths, warm = np.zeros((0, len(net.space))), None
    for number in range(trials):
        rng = np.random.default_rng((seed, number))
        new = bayes.prior(number, len(net.space), vectors.low, rng, vectors.encoding)
        if new is None:
            losses = _loss(net, vectors.subnets(widths))
            proposal = bayes.propose(widths, losses, cost, vectors.low, rng, options, warm, vectors.encoding)
            new, warm = proposal.widths, proposal.warm
        widths = np.vstack([widths, new])
    return vectors.subnets(widths)


def _loss(net: Supernet, subnets: np.ndarray) -> np.ndarray:
    """1 at full size; it doubles where three quarters of the MACs are lost."""
    return np.sqrt(float(net.macs(net.space.largest)) / net.macs(subnets))
