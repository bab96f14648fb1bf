"""S-Net on CIFAR-10: ResNet-44 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 24 groups, 6,156,448 MACs at width 0.25 to 97,174,144 at 1.
Command: slimjax train --config configs/cifar10_resnet44_snet.py --workdir runs/cifar10_resnet44_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(10)
    config.algorithm = recipes.snet()
    config.model.name = "resnet44"
    return config
