"""WPC on CIFAR-10 or -100: three nested subnets of a ResNet or VGG-16, found by pruning, trained together.

Paper: Yang, He, Cao and Fan, Non-uniform DNN Structured Subnets Sampling for Dynamic Inference, DAC 2020
  (method only: lambda, a, lengths and budgets are ours, as none are published; else the recipe is that of
  cifar_snet.py, without warm-up: each round would have one, in which lambda would run ahead of the weights).
Command: slimjax train --config configs/cifar_wpc.py:model=resnet20,classes=10 --workdir runs/cifar_wpc
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published, only pictures; not run yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

DENSE, LASSO, FUSED = 100.0, 30.0, 100.0
"""Epochs of the phases, of each round for the second."""

BUDGETS = ("macs<=0.75", "macs<=0.5", "macs<=0.25")


def get_config(
    model: Literal["resnet20", "resnet56", "vgg16"] = "resnet20", classes: Literal[10, 100] = 10
) -> ConfigDict:
    config = recipes.cifar(model, classes)
    config.algorithm = recipes.algorithm("wpc", budgets=BUDGETS, dense=DENSE, lasso=LASSO, fused=FUSED)
    config.model.min_width = 0.1
    config.optimizer.warmup_epochs = 0.0
    config.train.epochs = DENSE + len(BUDGETS) * LASSO + FUSED
    return config
