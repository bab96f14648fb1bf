"""Joslim on scikit-learn's 8x8 digits with a ResNet-8 as wide as a TPU's lanes: for widths found on latencies.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021 (method only; the paper uses neither this data nor latencies).
Network: 6 groups, 1,714,816 MACs at width 0.25 to 11,835,904 at 1.
Command: slimjax train --config configs/digits_resnet8_joslim_wide.py --workdir runs/wide_macs
Hardware: any; six to eight minutes on two CPU cores.
Expected: 96 to 98 % top-1 from 14 to 100 % of the MACs, hardly rising with them (two runs).
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.joslim(steps_per_round=10)
    config.algorithm.search.bound = "lower"
    config.data.holdout = 200
    config.model.update(min_width=0.25, rounding="multiple", divisor=32)
    config.model.options.channels = (64, 128, 256)
    config.engine.policy = "bucketed"  # rounds are too short for programs of their own
    config.engine.max_programs = 8
    config.optimizer.learning_rate = 0.05
    config.scoring.images = 200
    config.train.update(batch_size=32, steps=400)
    return config
