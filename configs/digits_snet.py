"""S-Net on scikit-learn's 8x8 digits: the smallest run there is, with four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the paper does not use this data).
Command: slimjax train --config configs/digits_snet.py --workdir runs/digits_snet
Hardware: any; under a minute on two CPU cores.
Expected: one run on two CPU cores gave top-1 73, 91, 95 and 96 % at 0.25, 0.5, 0.75 and 1.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("snet")
    config.model.options.channels = (8, 16, 32)
    config.train.steps = 300
    return config
