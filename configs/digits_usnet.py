"""US-Net on scikit-learn's 8x8 digits: the smallest run there is, for a first look and for tests.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the paper does not use this data).
Command: slimjax train --config configs/digits_usnet.py --workdir runs/digits
Hardware: any; under a minute on two CPU cores.
Expected: one run on two CPU cores gave top-1 80, 82, 91 and 94 % at 0.25, 0.5, 0.75 and 1.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("usnet")
    config.model.options.channels = (8, 16, 32)
    config.train.steps = 300
    config.evaluation.widths = (0.25, 0.5, 0.75, 1.0)
    return config
