r"""US-Net on ImageNet: ResNet-50 in steps of 8 channels at any width from 0.125 to 1, for AutoSlim.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (the supernet, before it is slimmed; see recipes.imagenet_autoslim).
Network: 37 groups, 77,037,824 MACs at width 0.125 to 4,089,284,608 at 1.
Command: slimjax train --config configs/imagenet_autoslim_resnet50_usnet.py --workdir runs/autoslim_resnet50
Then: slimjax search --workdir runs/autoslim_resnet50 --method greedy \
    --budget 'macs<=3e9' 'macs<=2e9' 'macs<=1e9' 'macs<=570e6'
  slimjax train --config runs/autoslim_resnet50/search-greedy/retrain.py --workdir runs/retrained
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published for the supernet;
  published top-1 error of the retrained networks in %:
  24.0, 24.4, 26.0 and 27.8 at 3.0, 2.0, 1.0 and 0.57 billion MACs.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_autoslim()
    config.model.name = "autoslim_resnet50"
    return config
