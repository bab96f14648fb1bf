"""Joslim on ImageNet: MobileNet V2 at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Network: 24 groups, 64,241,864 MACs at width 0.42 to 300,836,992 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v2_joslim.py --workdir runs/imagenet_mobilenet_v2_joslim
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: gains of up to 1.7 % top-1 over US-Net on MobileNet V2 (abstract).
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=250.0)
    config.algorithm = recipes.joslim(steps_per_round=625)
    config.model.update(min_width=0.42, rounding="truncate")
    config.model.name = "us_mobilenet_v2"
    return config
