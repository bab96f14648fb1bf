"""S-Net on CIFAR-10: ResNet-20 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 12 groups, 2,617,504 MACs at width 0.25 to 40,551,040 at 1.
Command: slimjax train --config configs/cifar10_resnet20_snet.py --workdir runs/cifar10_resnet20_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(10)
    config.algorithm = recipes.snet()
    config.model.name = "resnet20"
    return config
