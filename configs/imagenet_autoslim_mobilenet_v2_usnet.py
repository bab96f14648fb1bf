r"""US-Net on ImageNet: AutoSlim's MobileNet V2 of 1.5 times the channels, at any width from 0.125 to 1.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (the supernet, before it is slimmed; see recipes.imagenet_autoslim).
Network: 25 groups, 28,304,848 MACs at width 0.125 to 672,926,784 at 1.
Command: slimjax train --config configs/imagenet_autoslim_mobilenet_v2_usnet.py --workdir runs/autoslim_mobilenet_v2
Then: slimjax search --workdir runs/autoslim_mobilenet_v2 --method greedy \
    --budget 'macs<=505e6' 'macs<=305e6' 'macs<=207e6'
  slimjax train --config runs/autoslim_mobilenet_v2/search-greedy/retrain.py --workdir runs/retrained
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: about 72 % top-1 at width 1 (an author to users);
  published top-1 error of the retrained networks in %: 24.6, 25.8 and 27.0 at 505, 305 and 207 million MACs.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_autoslim()
    config.model.name = "autoslim_mobilenet_v2"
    return config
