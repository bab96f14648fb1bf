r"""BigNAS on ImageNet: ResNet-18 at any channels from 0.42 to 1 of each group, searched afterwards.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (method only: channels, no kernels or depths; the settings are Joslim's, whose TwoStage baseline this is).
Network: 12 groups, 338,871,689 MACs at width 0.42 to 1,814,073,344 at 1.
Command: slimjax train --config configs/imagenet_resnet18_bignas.py --workdir runs/imagenet_resnet18_bignas
Then: slimjax search --workdir runs/imagenet_resnet18_bignas --trials 1000 \
    --budget 'macs<=0.3' 'macs<=0.5' 'macs<=0.75'
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published for these settings.
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_joslim(epochs=100.0)
    config.algorithm = recipes.bignas()
    config.model.name = "resnet18"
    return config
