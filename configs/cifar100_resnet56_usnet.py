r"""US-Net on CIFAR-100: ResNet-56 at any width from 0.25 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Network: 30 groups, 7,927,360 MACs at width 0.25 to 125,491,456 at 1.
Command: slimjax train --config configs/cifar100_resnet56_usnet.py --workdir runs/cifar100_resnet56_usnet
With Joslim's settings, to compare: add --config.model.min_width=0.42 --config.data.holdout=5000
AutoSlim's supernet: add --config.data.holdout=5000
Then: slimjax search --workdir runs/cifar100_resnet56_usnet --method greedy --images 5000 \
    --budget 'macs<=0.5' 'macs<=0.25'
  slimjax train --config runs/cifar100_resnet56_usnet/search-greedy/retrain.py --workdir runs/retrained
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar(100)
    config.algorithm = recipes.usnet()
    config.model.name = "resnet56"
    return config
