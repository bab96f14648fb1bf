"""Joslim on ImageNet: MobileNet V3 Large at any channels from 0.42 to 1 of each group.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural
  Networks, ECML 2021.
Network: 20 groups, 46,986,366 MACs at width 0.42 to 216,589,760 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v3_large_joslim.py --workdir runs/mobilenet_v3_joslim
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: the paper's numbers are in figures only.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=250.0)
    config.algorithm = recipes.joslim(steps_per_round=625)
    config.data.augment = "basic"  # crops of 0.08 to 1 of the image
    config.model.name = "mobilenet_v3_large"
    return config
