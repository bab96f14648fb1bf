"""Sandwich training on random subnets, each axis drawn on its own, then a search on frozen weights.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020. With a
Bayesian search it is the TwoStage baseline of Joslim's authors.
"""

from __future__ import annotations

import numpy as np

from slimjax.algorithms.base import Algorithm
from slimjax.algorithms.sandwich import sandwich
from slimjax.nn.space import Subnet
from slimjax.step.engine import Engine
from slimjax.vectors import WidthVectors


def bignas(
    engine: Engine,
    *,
    num_subnets: int = 4,
    sample_max: bool = True,
    sample_min: bool = True,
    student_target: str = "teacher",
    dropout: float = 0.2,
    zero_last_gammas: bool = True,
    nondecreasing: bool = True,
    sampling_seed: int = 1995,
) -> Algorithm:
    """Sandwich rule on max, min and n - 2 subnets, each of whose axes is drawn on its own (`sandwich`).

    A group's fraction is drawn afresh, uniformly over the space's range; options of a choice, and counts that a group
    lists, are equally likely. `slimjax search --method coarse_to_fine` then finds subnets for budgets, as the paper
    does; they are calibrated, not trained again.

    Paper: section 3.1: sandwich rule; in-place distillation; residual branches that begin at zero; regularisation of
    the largest network only. The last takes no more than `dropout`: the others learn from no smoothed label, and weight
    decay is added once an update, whatever the number of subnets. The decay of the rate that ends at a constant is the
    schedule's (`recipes.bignas_schedule`).
    Differs: what is drawn is what the network's space has: all of the paper's axes in `models.ofa` (with Once-for-All's
    options), channels alone in the other networks. Every drawn subnet has a resolution of its own. No block is skipped
    at random (drop-connect). No shortcuts are added between stages.
    Reduces to: Joslim's TwoStage baseline, with no dropout and gammas that begin at 1.

    Args:
      dropout: of the largest network. 0.2 is what its re-implementations use.
      nondecreasing: see `vectors.WidthVectors`.
    """
    vectors = WidthVectors(engine.net, nondecreasing=nondecreasing)

    def draw(rng: np.random.Generator, count: int) -> Subnet:
        return vectors.subnets(rng.uniform(vectors.low, 1, (count, len(engine.net.space))))

    return sandwich(
        engine,
        draw,
        num_subnets=num_subnets,
        sample_max=sample_max,
        sample_min=sample_min,
        student_target=student_target,
        dropout=dropout,
        zero_last_gammas=zero_last_gammas,
        sampling_seed=sampling_seed,
    )
