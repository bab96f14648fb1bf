"""Joint Search-and-Training on CIFAR-10 or -100: thirty sampled subnets of a ResNet or VGG-16, the best fine-tuned.

Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020
  (T and the coarse training; the other settings are those of a known reimplementation, which has ResNet-20 on
  CIFAR-10 only). A fifth of the training images are held out, for the alphas and the rewards.
Command: slimjax train --config configs/cifar_jst.py:model=resnet20,classes=10 --workdir runs/cifar_jst
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: no numbers are published, only pictures; not run yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

SUBNETS = 30
HELD_OUT, OTHERS = 10_000, 40_000
COARSE, WEIGHTS, ALPHAS, FINE_TUNING = 100.0, 40.0, 5.0 * HELD_OUT / OTHERS, 100.0
"""Lengths of the phases, in epochs of the other images: 5 epochs of the held-out ones for the alphas."""


def get_config(
    model: Literal["resnet20", "resnet56", "vgg16"] = "resnet20", classes: Literal[10, 100] = 10
) -> ConfigDict:
    config = recipes.cifar(model, classes)
    config.algorithm = recipes.algorithm(
        "jst", num_subnets=SUBNETS, coarse=COARSE, weights=WEIGHTS, alphas=ALPHAS, fine_tuning=FINE_TUNING
    )
    config.model.min_width = 0.1
    config.data.holdout = HELD_OUT
    config.scoring.images = 2000
    config.optimizer.update(schedule="cosine", warmup_epochs=0.0)
    config.train.label_smoothing = 0.0
    config.train.epochs = COARSE + SUBNETS * (WEIGHTS + ALPHAS) + FINE_TUNING
    return config
