"""S-Net on ImageNet: ShuffleNet with three conv groups, at three switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019,
  with the released settings. Widths are those of the ShuffleNet paper: 2 is the largest network.
Network: 17 groups, 37,750,836 MACs at width 0.5 to 524,209,584 at 2.
Command: slimjax train --config configs/imagenet_shufflenet_snet.py --workdir runs/imagenet_shufflenet_snet
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: published top-1 error in % and millions of MACs, by width:
  2: 28.6 (524), 1: 34.5 (138), 0.5: 42.8 (38)
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_usnet()  # US-MobileNets have the same schedule
    config.algorithm = recipes.snet((0.5, 1.0, 2.0))
    config.model.name = "s_shufflenet"
    return config
