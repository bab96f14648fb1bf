"""A small search, and the searchers that solve it."""

import numpy as np

from slimjax.nn.space import Space
from slimjax.nn.widths import Group, Rounding
from slimjax.search.coarse_to_fine import coarse_to_fine
from slimjax.search.evolution import evolution
from slimjax.search.greedy import greedy
from slimjax.search.run import run
from slimjax.search.trials import TrialLog

SPACE = Space(tuple(Group(f"g{i}", 48) for i in range(5)), Rounding("multiple", 8), 0.15)


def cost(subnets):
    n = np.asarray(subnets, np.int64)
    return 3 * n[..., 0] + (n[..., 1:] * n[..., :-1]).sum(-1)


def error(subnets):
    return (np.arange(1, 6) / np.asarray(subnets, np.float64)).sum(-1)


SEARCHES = {
    "greedy": lambda: greedy(SPACE, cost, [6000, 3000, 1000]),
    "evolution": lambda: evolution(SPACE, cost, 4000, population=8, generations=5, mutation_probability=0.3),
    "coarse_to_fine": lambda: coarse_to_fine(SPACE, cost, range(6000, 1000, -700), trials=90),
}


def run_into(directory, searcher, score=error, **options):
    with TrialLog(directory / "trials.jsonl") as log:
        return run(searcher, score, log, SPACE, cost, how="test", target=7.0, **options)
