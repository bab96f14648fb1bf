"""WPC on scikit-learn's 8x8 digits: three nested subnets, found by pruning, trained together.

Paper: Yang, He, Cao and Fan, Non-uniform DNN Structured Subnets Sampling for Dynamic Inference, DAC 2020
  (method only; the paper does not use this data).
Command: slimjax train --config configs/digits_wpc.py --workdir runs/digits_wpc
Hardware: any; under a minute on two CPU cores.
Expected: one run on two CPU cores met the budgets of .75, .5 and .25 of the MACs at 99.3, 99.6 and 99.2 % of each,
  with top-1 96.4, 96.4 and 95.8 %.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("wpc", dense=20.0, lasso=10.0, fused=20.0)
    config.model.min_width = 0.1
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"  # programs of their own do not pay for so small a network
    config.train.epochs = 70.0
    return config
