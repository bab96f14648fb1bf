"""S-Net on CIFAR-100: ResNet-44 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 24 groups, 6,157,888 MACs at width 0.25 to 97,179,904 at 1.
Command: slimjax train --config configs/cifar100_resnet44_snet.py --workdir runs/cifar100_resnet44_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(100)
    config.algorithm = recipes.snet()
    config.model.name = "resnet44"
    return config
