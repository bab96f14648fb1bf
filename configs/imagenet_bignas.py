r"""BigNAS on ImageNet: MobileNet V2 or V3 Large or ResNet-18 at any channels from 0.42 to 1, or the MobileNet V3 of
Once-for-All with its kernels, expansions, depths and four resolutions, searched afterwards.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (ofa_mobilenet_v3 has the space of Cai et al., Once-for-All, ICLR 2020; the others have channels only. The other
  settings are Joslim's).
Command: slimjax train --config configs/imagenet_bignas.py:model=us_mobilenet_v2 --workdir runs/imagenet_bignas
With Joslim's settings, as its TwoStage baseline: add --config.optimizer.schedule=linear \
  --config.optimizer.factor=0.98 --config.optimizer.decay_epochs=1 --config.optimizer.final_fraction=0 \
  --config.algorithm.dropout=0 --config.algorithm.zero_last_gammas=false
Then: slimjax search --workdir runs/imagenet_bignas --trials 1000 --budget 'macs<=0.3' 'macs<=0.5' 'macs<=0.75'
Once-for-All's space: --config configs/imagenet_bignas.py:model=ofa_mobilenet_v3
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published for these settings; not run here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["us_mobilenet_v2", "mobilenet_v3_large", "resnet18", "ofa_mobilenet_v3"]


def get_config(model: Model = "us_mobilenet_v2") -> ConfigDict:
    config = recipes.imagenet_joslim(model)
    config.algorithm = recipes.algorithm("bignas")
    recipes.bignas_schedule(config)
    return config
