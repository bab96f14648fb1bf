r"""US-Net on ImageNet: AutoSlim's MobileNet V1 of 1.5 times the channels, at any width from 0.125 to 1.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (the supernet, before it is slimmed; see recipes.imagenet_autoslim).
Network: 14 groups, 26,479,520 MACs at width 0.125 to 1,257,805,056 at 1.
Command: slimjax train --config configs/imagenet_autoslim_mobilenet_v1_usnet.py --workdir runs/autoslim_mobilenet_v1
Then: slimjax search --workdir runs/autoslim_mobilenet_v1 --method greedy \
    --budget 'macs<=572e6' 'macs<=325e6' 'macs<=150e6'
  slimjax train --config runs/autoslim_mobilenet_v1/search-greedy/retrain.py --workdir runs/retrained
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published for the supernet;
  published top-1 error of the retrained networks in %: 27.0, 28.5 and 32.1 at 572, 325 and 150 million MACs.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_autoslim()
    config.model.name = "autoslim_mobilenet_v1"
    return config
