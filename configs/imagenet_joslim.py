"""Joslim on ImageNet: MobileNet V2 or V3 Large or ResNet-18 at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Command: slimjax train --config configs/imagenet_joslim.py:model=us_mobilenet_v2 --workdir runs/imagenet_joslim
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: gains of up to 1.7 % top-1 over US-Net on MobileNet V2 (abstract), the rest is in figures only; not run
  here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["us_mobilenet_v2", "mobilenet_v3_large", "resnet18"]
STEPS_PER_ROUND = {"us_mobilenet_v2": 625, "mobilenet_v3_large": 625, "resnet18": 250}


def get_config(model: Model = "us_mobilenet_v2") -> ConfigDict:
    config = recipes.imagenet_joslim(model)
    config.algorithm = recipes.algorithm("joslim", steps_per_round=STEPS_PER_ROUND[model])
    return config
