r"""US-Net on ImageNet in batches of 2,048: MobileNets on accelerators that want 128 images each.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019, for the algorithm; the
  rate follows the batch and rises for five epochs, as Goyal et al., Accurate, Large Minibatch SGD, 2017, have it.
Command: slimjax train --config configs/imagenet2048_usnet.py:model=us_mobilenet_v2 --workdir runs/imagenet2048_usnet
Hardware: 16 TPU chips, or any number that divides 2,048. On 8 chips add --config.train.micro_batches=2
Expected: not run here yet; docs/results/speed.md has the compiler's estimates.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["us_mobilenet_v1", "us_mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]


def get_config(model: Model = "us_mobilenet_v2") -> ConfigDict:
    config = recipes.imagenet_usnet() if model.startswith("us_") else recipes.imagenet_joslim(model)
    config.model.name = model
    return recipes.at_batch(config, 2048)
