"""US-Net on CIFAR-100: ResNet-56 at any width from 0.25 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 30 groups, 7,927,360 MACs at width 0.25 to 125,491,456 at 1.
Command: slimjax train --config configs/cifar100_resnet56_usnet.py --workdir runs/cifar100_resnet56_usnet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(100)
    config.algorithm = recipes.usnet()
    config.model.name = "resnet56"
    return config
