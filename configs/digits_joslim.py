"""Joslim on scikit-learn's 8x8 digits: widths and weights found together, in minutes.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021 (method only; the paper uses neither this data nor latencies).
Command: slimjax train --config configs/digits_joslim.py --workdir runs/digits_joslim
A ResNet-8 as wide as a TPU's lanes, for widths found on latencies: --config configs/digits_joslim.py:wide=true
Hardware: any; a few minutes on two CPU cores, six to eight if wide.
Expected: the front of the subnets that were visited, from 14 to 100 % of the MACs; if wide, 96 to 98 % top-1,
  hardly rising with them (two runs).
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config(wide: bool = False) -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("joslim", steps_per_round=20, search={"bound": "lower"})
    config.data.holdout = 200
    config.model.min_width = 0.42
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"  # a program of their own does not pay for subnets of twenty quick steps
    config.train.steps = 800
    if wide:
        _widen(config)
    return config


def _widen(config: ConfigDict) -> None:
    config.algorithm.steps_per_round = 10
    config.model.update(min_width=0.25, rounding="multiple", divisor=32)
    config.model.options.channels = (64, 128, 256)
    config.engine.update(policy="bucketed", max_programs=8)  # rounds are too short for programs of their own
    config.optimizer.learning_rate = 0.05
    config.scoring.images = 200
    config.train.update(batch_size=32, steps=400)
