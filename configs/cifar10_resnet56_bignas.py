r"""BigNAS on CIFAR-10: ResNet-56 at any channels from 0.42 to 1 of each group, searched afterwards.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (method only: channels, no kernels or depths; the settings are Joslim's, whose TwoStage baseline this is).
Network: 30 groups, 19,751,300 MACs at width 0.42 to 125,485,696 at 1.
Command: slimjax train --config configs/cifar10_resnet56_bignas.py --workdir runs/cifar10_resnet56_bignas
Then: slimjax search --workdir runs/cifar10_resnet56_bignas --trials 1000 \
    --budget 'macs<=0.25' 'macs<=0.5' 'macs<=0.75'
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: the paper's numbers are in figures only.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar_joslim(10)
    config.algorithm = recipes.bignas()
    config.model.name = "resnet56"
    return config
