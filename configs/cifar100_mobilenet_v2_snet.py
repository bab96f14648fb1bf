"""S-Net on CIFAR-100: MobileNet V2 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 24 groups, 15,746,816 MACs at width 0.35 to 88,112,128 at 1.
Command: slimjax train --config configs/cifar100_mobilenet_v2_snet.py --workdir runs/cifar100_mobilenet_v2_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(100)
    config.algorithm = recipes.snet((0.35, 0.5, 0.75, 1.0))
    config.model.name = "s_mobilenet_v2"
    config.model.options.small_images = True
    return config
