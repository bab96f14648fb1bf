r"""TF-NAS on ImageNet-100: operators, depths and widths are searched for a latency or another cost.

Paper: Hu, Wu and He, TF-NAS: Rethinking Three Search Freedoms of Latency-Constrained Differentiable Neural
  Architecture Search, ECCV 2020 (see recipes.imagenet100_tfnas; 18 ms on a Titan RTX for network A).
Command: slimjax train --config configs/imagenet100_tfnas.py --workdir runs/tfnas --config.data.data_dir=DIR \
  --config.algorithm.budget='latency_ms<=18@table.json'
Before: slimjax profile --model tfnas --num-classes 100 --target gpu --batch 32 --out table.json
Then: slimjax train --config runs/tfnas/search-tfnas/retrain.py --workdir runs/retrained
Data: DIR holds imagenet100_train.txt and imagenet100_test.txt, lines of `path/below/DIR.JPEG label`, and the images.
Hardware: one GPU or TPU chip; any number of devices that divides 32. The paper: 1.8 days on one Titan RTX.
Expected: top-1 of 76.9 % for network A, 75.2 % for C, once trained on ImageNet (published); not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    return recipes.imagenet100_tfnas()
