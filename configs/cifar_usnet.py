"""US-Net on CIFAR-10 or -100: a ResNet, MobileNet or VGG-16 at any width from 0.25 to 1 (MobileNet V2: 0.35).

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Command: slimjax train --config configs/cifar_usnet.py:model=resnet20,classes=100 --workdir runs/cifar_usnet
With Joslim's settings, to compare: add --config.model.min_width=0.42 --config.data.holdout=5000
AutoSlim's supernet: add --config.data.holdout=5000
Then: slimjax search --workdir runs/cifar_usnet --method greedy --images 5000 --budget 'macs<=0.5' 'macs<=0.25'
  slimjax train --config runs/cifar_usnet/search-greedy/retrain.py --workdir runs/retrained
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["resnet20", "resnet32", "resnet44", "resnet56", "us_mobilenet_v1", "us_mobilenet_v2", "vgg16"]


def get_config(model: Model = "resnet20", classes: Literal[10, 100] = 10) -> ConfigDict:
    config = recipes.cifar(model, classes)
    config.algorithm = recipes.algorithm("usnet")
    return config
