"""S-Net on CIFAR-10 or -100: a ResNet, MobileNet or VGG-16 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019
  (method only; the recipe is Joslim's, see recipes.cifar).
Command: slimjax train --config configs/cifar_snet.py:model=resnet20,classes=10 --workdir runs/cifar_snet
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published; not run yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["resnet20", "resnet32", "resnet44", "resnet56", "s_mobilenet_v1", "s_mobilenet_v2", "vgg16"]
SWITCHES = {"s_mobilenet_v2": {"widths": (0.35, 0.5, 0.75, 1.0)}}
"""Where they are not the method's own."""


def get_config(model: Model = "resnet20", classes: Literal[10, 100] = 10) -> ConfigDict:
    config = recipes.cifar(model, classes)
    config.algorithm = recipes.algorithm("snet", **SWITCHES.get(model, {}))
    return config
