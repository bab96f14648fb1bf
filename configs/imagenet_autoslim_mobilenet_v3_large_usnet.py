"""US-Net on ImageNet: MobileNet V3 Large in steps of 8 channels at any width from 0.125 to 1, for AutoSlim.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (the paper has no MobileNet V3; see recipes.imagenet_autoslim).
Network: 20 groups, 14,665,160 MACs at width 0.125 to 216,589,760 at 1.
Command: slimjax train --config configs/imagenet_autoslim_mobilenet_v3_large_usnet.py --workdir runs/autoslim_v3
Then: slimjax search --workdir runs/autoslim_v3 --method greedy --budget 'macs<=0.5' 'macs<=0.25'
  slimjax train --config runs/autoslim_v3/search-greedy/retrain.py --workdir runs/retrained
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_autoslim()
    config.model.update(name="mobilenet_v3_large", min_width=0.125, rounding="multiple", divisor=8)
    return config
