"""S-Net on CIFAR-100: ResNet-32 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 18 groups, 4,388,416 MACs at width 0.25 to 68,868,352 at 1.
Command: slimjax train --config configs/cifar100_resnet32_snet.py --workdir runs/cifar100_resnet32_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(100)
    config.algorithm = recipes.snet()
    config.model.name = "resnet32"
    return config
