"""S-Net on CIFAR-10: ResNet-56 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 30 groups, 7,925,920 MACs at width 0.25 to 125,485,696 at 1.
Command: slimjax train --config configs/cifar10_resnet56_snet.py --workdir runs/cifar10_resnet56_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(10)
    config.algorithm = recipes.snet()
    config.model.name = "resnet56"
    return config
