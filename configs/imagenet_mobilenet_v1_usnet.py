r"""US-Net on ImageNet: MobileNet V1 at any width from 0.25 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019,
  with the released settings.
Network: 14 groups, 41,042,816 MACs at width 0.25 to 568,790,528 at 1.
Command: slimjax train --config configs/imagenet_mobilenet_v1_usnet.py --workdir runs/imagenet_mobilenet_v1_usnet
Released code, which trains without distillation: add --config.algorithm.student_target=labels
Range [0.05, 1]: add --config.model.min_width=0.05 \
  --config.evaluation.widths=0.05,0.15,0.25,0.35,0.45,0.55,0.65,0.75,0.85,1
Range [0.35, 1]: add --config.model.min_width=0.35 \
  --config.evaluation.widths=0.35,0.45,0.55,0.65,0.75,0.85,1
Hardware: 8 accelerators (the paper: 8 GPUs), or any number that divides 1,024.
Expected: published top-1 error in % and millions of MACs, by width:
  1: 28.2 (568), 0.95: 28.4 (517), 0.9: 28.7 (466), 0.875: 29.1 (443), 0.825: 29.7 (389),
  0.8: 30.2 (366), 0.75: 30.5 (325), 0.725: 30.9 (306), 0.675: 31.7 (267), 0.65: 32.2 (249),
  0.6: 33.2 (217), 0.575: 33.7 (201), 0.525: 35.0 (162), 0.5: 35.8 (149), 0.45: 37.3 (124),
  0.425: 38.1 (114), 0.375: 40.0 (89), 0.35: 41.0 (80), 0.3: 42.7 (64), 0.25: 44.3 (41)
Published for range [0.05, 1]:
  0.05: 79.4, 0.15: 66.2, 0.25: 54.8, 0.35: 44.7, 0.45: 39.3, 0.55: 35.6, 0.65: 32.8, 0.75: 31.0,
  0.85: 29.8, 1: 28.4
Published for range [0.35, 1]:
  0.35: 38.0, 0.45: 36.1, 0.55: 34.0, 0.65: 31.9, 0.75: 30.5, 0.85: 29.6, 1: 28.4
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_usnet()
    config.model.name = "us_mobilenet_v1"
    config.evaluation.widths = (
        0.25, 0.3, 0.35, 0.375, 0.425, 0.45, 0.5, 0.525, 0.575, 0.6,
        0.65, 0.675, 0.725, 0.75, 0.8, 0.825, 0.875, 0.9, 0.95, 1.0,
    )  # fmt: skip
    return config
