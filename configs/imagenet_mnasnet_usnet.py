r"""US-Net on ImageNet: AutoSlim's MNasNet of 1.5 times the channels, at any width from 0.125 to 1.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (the supernet, before it is slimmed; see recipes.imagenet_autoslim).
Network: 25 groups, 25,651,792 MACs at width 0.125 to 702,397,344 at 1.
Command: slimjax train --config configs/imagenet_mnasnet_usnet.py --workdir runs/imagenet_mnasnet_usnet
Then: slimjax search --workdir runs/imagenet_mnasnet_usnet --method greedy \
    --budget 'macs<=532e6' 'macs<=315e6' 'macs<=217e6'
  slimjax train --config runs/imagenet_mnasnet_usnet/search-greedy/retrain.py --workdir runs/retrained
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published for the supernet;
  published top-1 error of the retrained networks in %: 24.6, 25.4 and 26.8 at 532, 315 and 217 million MACs.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_autoslim()
    config.model.name = "autoslim_mnasnet"
    return config
