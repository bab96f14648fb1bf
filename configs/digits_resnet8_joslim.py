"""Joslim on scikit-learn's 8x8 digits: widths and weights found together, in minutes.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021 (method only; the paper does not use this data).
Network: 6 groups, 28,894 MACs at width 0.42 to 189,248 at 1.
Command: slimjax train --config configs/digits_resnet8_joslim.py --workdir runs/digits_joslim
Hardware: any; a few minutes on two CPU cores.
Expected: the front of the subnets that were visited, from 14 to 100 % of the MACs.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.joslim(steps_per_round=20)
    config.algorithm.search.bound = "lower"
    config.data.holdout = 200
    config.model.update(min_width=0.42)
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"  # a program of their own does not pay for subnets of twenty quick steps
    config.train.steps = 800
    return config
