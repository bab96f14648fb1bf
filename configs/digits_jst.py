"""Joint Search-and-Training on scikit-learn's 8x8 digits: eight sampled subnets, the best of them fine-tuned.

Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020
  (method only; the paper does not use this data).
Command: slimjax train --config configs/digits_jst.py --workdir runs/digits_jst
Hardware: any; under a minute on two CPU cores.
Expected: one run on two CPU cores gave rewards from -0.99 to -0.71, and a best subnet of 27.6 % of the parameters with
  top-1 96.6 %.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm(
        "jst", num_subnets=8, coarse=20.0, weights=5.0, alphas=2.0, fine_tuning=20.0
    )
    config.data.holdout = 200
    config.scoring.images = 200
    config.model.min_width = 0.1
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"  # a program of its own does not pay for a subnet of so few steps
    config.train.epochs = 96.0
    return config
