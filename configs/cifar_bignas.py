r"""BigNAS on CIFAR-10 or -100: a ResNet at any channels from 0.42 to 1 of each group, searched afterwards.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (channels only, no kernels, depths or resolutions; the other settings are Joslim's).
Command: slimjax train --config configs/cifar_bignas.py:model=resnet56,classes=100 --workdir runs/cifar_bignas
With Joslim's settings, as its TwoStage baseline: add --config.optimizer.schedule=linear \
  --config.optimizer.factor=0.98 --config.optimizer.decay_epochs=1 --config.optimizer.final_fraction=0 \
  --config.algorithm.dropout=0 --config.algorithm.zero_last_gammas=false
Then: slimjax search --workdir runs/cifar_bignas --trials 1000 --budget 'macs<=0.25' 'macs<=0.5' 'macs<=0.75'
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: the paper's numbers are in figures only; not run yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["resnet20", "resnet32", "resnet44", "resnet56"]


def get_config(model: Model = "resnet20", classes: Literal[10, 100] = 10) -> ConfigDict:
    config = recipes.cifar_joslim(model, classes)
    config.algorithm = recipes.algorithm("bignas")
    recipes.bignas_schedule(config)
    return config
