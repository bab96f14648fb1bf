"""Joslim on CIFAR-10: ResNet-44 at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Network: 24 groups, 15,309,188 MACs at width 0.42 to 97,174,144 at 1.
Command: slimjax train --config configs/cifar10_resnet44_joslim.py --workdir runs/cifar10_resnet44_joslim
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: the paper's numbers are in figures only.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar_joslim(10)
    config.model.name = "resnet44"
    return config
