"""Joslim on CIFAR-10 or -100: a ResNet at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Command: slimjax train --config configs/cifar_joslim.py:model=resnet56,classes=100 --workdir runs/cifar_joslim
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: the paper's numbers are in figures only; not run yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["resnet20", "resnet32", "resnet44", "resnet56"]


def get_config(model: Model = "resnet20", classes: Literal[10, 100] = 10) -> ConfigDict:
    return recipes.cifar_joslim(model, classes)
