"""US-Net on CIFAR-10: MobileNet V2 at any width from 0.35 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 24 groups, 15,631,616 MACs at width 0.35 to 87,996,928 at 1.
Command: slimjax train --config configs/cifar10_mobilenet_v2_usnet.py --workdir runs/cifar10_mobilenet_v2_usnet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(10)
    config.algorithm = recipes.usnet()
    config.model.name = "us_mobilenet_v2"
    config.model.options.small_images = True
    return config
