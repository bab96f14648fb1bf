"""Joint Search-and-Training on ImageNet: twenty sampled subnets of ResNet-18 or -50, the best of them fine-tuned.

Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020
  (T, M, N and the coarse training; held-out images, batch, rate and the length of the fine-tuning are ours, as none
  are published). The alphas and the rewards take images that are held out.
Command: slimjax train --config configs/imagenet_jst.py:model=resnet18 --workdir runs/imagenet_jst
Hardware: 8 accelerators, or any number that divides 256.
Expected: no numbers are published, only pictures; not run here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

SUBNETS = 20
HELD_OUT, OTHERS = 50_000, 1_231_167
COARSE, WEIGHTS, ALPHAS, FINE_TUNING = 40.0, 10.0, 2.0 * HELD_OUT / OTHERS, 40.0
"""Lengths of the phases, in epochs of the other images: 2 epochs of the held-out ones for the alphas."""


def get_config(model: Literal["resnet18", "resnet50"] = "resnet18") -> ConfigDict:
    config = recipes.imagenet_resnet(model)
    config.algorithm = recipes.algorithm(
        "jst", num_subnets=SUBNETS, coarse=COARSE, weights=WEIGHTS, alphas=ALPHAS, fine_tuning=FINE_TUNING
    )
    config.model.min_width = 0.1
    config.data.holdout = HELD_OUT
    config.scoring.images = 1024
    config.optimizer.schedule = "cosine"
    config.train.epochs = COARSE + SUBNETS * (WEIGHTS + ALPHAS) + FINE_TUNING
    return config
