"""Universally slimmable networks: any width in a range, trained with the sandwich rule.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019.
"""

from __future__ import annotations

import numpy as np

from slimjax.algorithms.base import Algorithm
from slimjax.algorithms.sandwich import sandwich
from slimjax.nn.space import Subnet
from slimjax.step.engine import Engine


def usnet(
    engine: Engine,
    *,
    num_subnets: int = 4,
    sample_max: bool = True,
    sample_min: bool = True,
    student_target: str = "teacher",
    sampling_seed: int = 1995,
) -> Algorithm:
    """Sandwich rule on max, min and n - 2 random widths (`sandwich` has the arguments).

    Each random width is one scalar for the whole network, drawn afresh from the continuous uniform
    distribution over the space's range.

    Paper: sections 3.1 (sandwich rule) and 3.3 (in-place distillation).
    Differs: the released configs set a flag that nothing reads, so their code trains without distillation;
    here the paper's rule is the default and `student_target="labels"` gives theirs. Every subnet is calibrated
    before it is evaluated.
    Reduces to: plain training, when `num_subnets` is 1.
    """
    space = engine.net.space

    def draw(rng: np.random.Generator, count: int) -> Subnet:
        widths = rng.uniform(space.min_width, space.max_width, size=count)
        return space.layerwise(np.repeat(widths[:, None], len(space), axis=1))

    return sandwich(
        engine,
        draw,
        num_subnets=num_subnets,
        sample_max=sample_max,
        sample_min=sample_min,
        student_target=student_target,
        sampling_seed=sampling_seed,
    )
