"""US-Net on ImageNet: MobileNet V2 at any width from 0.35 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019,
  with the released settings.
Network: 24 groups, 59,348,528 MACs at width 0.35 to 300,836,992 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v2_usnet.py --workdir runs/imagenet_mobilenet_v2_usnet
Released code, which trains without distillation: add --config.algorithm.student_target=labels
Hardware: 8 accelerators (the paper: 8 GPUs), or any number that divides 1,024.
Expected: published top-1 error in % and millions of MACs, by width:
  1: 28.5 (300), 0.975: 28.5 (299), 0.95: 28.8 (284), 0.9: 29.1 (269), 0.875: 29.1 (268),
  0.825: 29.9 (235), 0.8: 30.0 (222), 0.75: 30.4 (209), 0.725: 30.7 (185), 0.675: 31.4 (165),
  0.65: 31.7 (161), 0.6: 32.4 (151), 0.575: 32.4 (150), 0.525: 34.6 (100), 0.5: 34.9 (97),
  0.45: 35.8 (88), 0.425: 35.8 (88), 0.375: 36.7 (80), 0.35: 37.7 (59)
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_usnet()
    config.model.name = "us_mobilenet_v2"
    config.evaluation.widths = (
        0.35, 0.375, 0.425, 0.45, 0.5, 0.525, 0.575, 0.6, 0.65,
        0.675, 0.725, 0.75, 0.8, 0.825, 0.875, 0.9, 0.95, 0.975, 1.0,
    )  # fmt: skip
    return config
