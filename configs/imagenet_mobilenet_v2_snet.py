"""S-Net on ImageNet: MobileNet V2 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019,
  with the released settings.
Network: 24 groups, 59,348,528 MACs at width 0.35 to 300,836,992 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v2_snet.py --workdir runs/imagenet_mobilenet_v2_snet
Hardware: 8 accelerators, or any number that divides 160.
Expected: published top-1 error in % and millions of MACs, by width:
  1: 29.5 (301), 0.75: 31.1 (209), 0.5: 35.6 (97), 0.35: 40.3 (59)
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_snet()
    config.algorithm = recipes.snet((0.35, 0.5, 0.75, 1.0))
    config.model.name = "s_mobilenet_v2"
    return config
