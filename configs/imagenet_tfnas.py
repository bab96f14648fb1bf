"""TF-NAS-A on ImageNet: the published network, trained from scratch with the paper's settings.

Paper: Hu, Wu and He, TF-NAS: Rethinking Three Search Freedoms of Latency-Constrained Differentiable Neural
  Architecture Search, ECCV 2020 (section 4.1; see recipes.RETRAINING).
Command: slimjax train --config configs/imagenet_tfnas.py --workdir runs/tfnas_a
Hardware: 8 accelerators, or any number that divides 512.
Expected: 76.87 % top-1, 93.11 % top-5 (published); not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    return recipes.imagenet_tfnas()
