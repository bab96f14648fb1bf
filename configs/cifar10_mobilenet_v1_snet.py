"""S-Net on CIFAR-10: MobileNet V1 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 14 groups, 3,332,096 MACs at width 0.25 to 46,358,528 at 1.
Command: slimjax train --config configs/cifar10_mobilenet_v1_snet.py --workdir runs/cifar10_mobilenet_v1_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(10)
    config.algorithm = recipes.snet()
    config.model.name = "s_mobilenet_v1"
    config.model.options.small_images = True
    return config
