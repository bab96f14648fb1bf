"""Joslim on ImageNet: ResNet-18 at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Network: 12 groups, 338,871,689 MACs at width 0.42 to 1,814,073,344 at 1.
Command: slimjax train --config configs/imagenet_resnet18_joslim.py --workdir runs/imagenet_resnet18_joslim
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: the paper's numbers are in figures only.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=100.0)
    config.algorithm = recipes.joslim(steps_per_round=250)
    config.model.name = "resnet18"
    return config
