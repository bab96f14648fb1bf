"""WPC on ImageNet: four nested subnets of ResNet-18 or -50, found by pruning, trained together.

Paper: Yang, He, Cao and Fan, Non-uniform DNN Structured Subnets Sampling for Dynamic Inference, DAC 2020
  (method, and k = 4 for ResNet-18; lambda, a, lengths, budgets, batch and rate are ours, as none are published).
Command: slimjax train --config configs/imagenet_wpc.py:model=resnet18 --workdir runs/imagenet_wpc
Hardware: 8 accelerators, or any number that divides 256.
Expected: latencies of 13.4, 24.6, 41.3 and 62.1 ms for 128 images on a Titan GPU are published for ResNet-18's four
  subnets, accuracies in pictures only; not run here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

DENSE, LASSO, FUSED = 100.0, 20.0, 100.0
"""Epochs of the phases, of each round for the second."""

BUDGETS = ("macs<=0.8", "macs<=0.6", "macs<=0.4", "macs<=0.2")


def get_config(model: Literal["resnet18", "resnet50"] = "resnet18") -> ConfigDict:
    config = recipes.imagenet_resnet(model)
    config.algorithm = recipes.algorithm("wpc", budgets=BUDGETS, dense=DENSE, lasso=LASSO, fused=FUSED)
    config.model.min_width = 0.1
    config.train.epochs = DENSE + len(BUDGETS) * LASSO + FUSED
    return config
