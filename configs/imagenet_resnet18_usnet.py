"""US-Net on ImageNet: ResNet-18 at any width from 0.42 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's, see recipes.imagenet_joslim).
Network: 12 groups, 338,871,689 MACs at width 0.42 to 1,814,073,344 at 1.
Command: slimjax train --config configs/imagenet_resnet18_usnet.py --workdir runs/imagenet_resnet18_usnet
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=100.0)
    config.model.name = "resnet18"
    return config
