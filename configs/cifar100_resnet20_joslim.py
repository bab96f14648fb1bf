"""Joslim on CIFAR-100: ResNet-20 at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Network: 12 groups, 6,427,304 MACs at width 0.42 to 40,556,800 at 1.
Command: slimjax train --config configs/cifar100_resnet20_joslim.py --workdir runs/cifar100_resnet20_joslim
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: the paper's numbers are in figures only.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar_joslim(100)
    config.model.name = "resnet20"
    return config
