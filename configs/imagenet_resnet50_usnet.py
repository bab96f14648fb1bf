"""US-Net on ImageNet: ResNet-50 at any width from 0.42 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's for ResNet-18, see recipes.imagenet_joslim).
Network: 21 groups, 737,371,111 MACs at width 0.42 to 4,089,184,256 at 1.
Command: slimjax train --config configs/imagenet_resnet50_usnet.py --workdir runs/imagenet_resnet50_usnet
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=100.0)
    config.model.name = "resnet50"
    return config
