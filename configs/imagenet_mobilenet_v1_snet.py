"""S-Net on ImageNet: MobileNet V1 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019,
  with the released settings.
Network: 14 groups, 41,042,816 MACs at width 0.25 to 568,790,528 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v1_snet.py --workdir runs/imagenet_mobilenet_v1_snet
Hardware: 8 accelerators, or any number that divides 160.
Expected: published top-1 error in % and millions of MACs, by width:
  1: 28.5 (569), 0.75: 30.5 (325), 0.5: 35.2 (150), 0.25: 46.9 (41)
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_snet()
    config.model.name = "s_mobilenet_v1"
    return config
