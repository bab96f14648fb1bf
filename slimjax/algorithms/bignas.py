"""Sandwich training on random layer-wise widths, then a search on frozen weights.

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
    nondecreasing: bool = True,
    sampling_seed: int = 1995,
) -> Algorithm:
    """Sandwich rule on max, min and n - 2 subnets whose groups each have a random width (`sandwich`).

    Each group's fraction is drawn afresh, uniformly over the space's range. `slimjax search` then finds subnets
    for budgets; they are calibrated, not trained again.

    Paper: section 3.1 (sandwich rule, in-place distillation).
    Differs: channels only, no kernel sizes, depths or resolutions; so no drop-connect, and the last gammas of
    residual blocks do not start at zero. All subnets learn from the same augmented images.

    Args:
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
        sampling_seed=sampling_seed,
    )
