"""US-Net on ImageNet: MobileNet V3 Large at any width from 0.42 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's, see recipes.imagenet_joslim).
Network: 20 groups, 46,986,366 MACs at width 0.42 to 216,589,760 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v3_large_usnet.py --workdir runs/mobilenet_v3_large
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=250.0)
    config.data.augment = "basic"  # crops of 0.08 to 1 of the image
    config.model.name = "mobilenet_v3_large"
    return config
