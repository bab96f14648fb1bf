r"""US-Net on ImageNet: MobileNets or ResNets at any width.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019,
  with the released settings for MobileNet V1 (widths of 0.25 to 1) and V2 (0.35 to 1);
  other networks (0.42 to 1): method only, the recipe is Joslim's, to compare (see recipes.imagenet_joslim).
Command: slimjax train --config configs/imagenet_usnet.py:model=us_mobilenet_v1 --workdir runs/imagenet_usnet
Released code, which trains without distillation: add --config.algorithm.student_target=labels
Range [0.05, 1]: add --config.model.min_width=0.05 \
  --config.evaluation.widths=0.05,0.15,0.25,0.35,0.45,0.55,0.65,0.75,0.85,1
Range [0.35, 1]: add --config.model.min_width=0.35 --config.evaluation.widths=0.35,0.45,0.55,0.65,0.75,0.85,1
Hardware: 8 accelerators (the paper: 8 GPUs), or any number that divides 1,024.
Expected: the published errors in docs/results/networks.md; not run here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal[
    "us_mobilenet_v1", "us_mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet50"
]
PUBLISHED_WIDTHS = {
    "us_mobilenet_v1": (
        0.25, 0.3, 0.35, 0.375, 0.425, 0.45, 0.5, 0.525, 0.575, 0.6,
        0.65, 0.675, 0.725, 0.75, 0.8, 0.825, 0.875, 0.9, 0.95, 1.0,
    ),
    "us_mobilenet_v2": (
        0.35, 0.375, 0.425, 0.45, 0.5, 0.525, 0.575, 0.6, 0.65,
        0.675, 0.725, 0.75, 0.8, 0.825, 0.875, 0.9, 0.95, 0.975, 1.0,
    ),
}  # fmt: skip


def get_config(model: Model = "us_mobilenet_v2") -> ConfigDict:
    if model not in PUBLISHED_WIDTHS:
        return recipes.imagenet_joslim(model)
    config = recipes.imagenet_usnet()
    config.model.name = model
    config.evaluation.widths = PUBLISHED_WIDTHS[model]
    return config
