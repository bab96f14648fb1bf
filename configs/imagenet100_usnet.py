r"""US-Net on ImageNet-100, from list files: MobileNet V2 at any width from 0.35 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method and recipe; the paper does not use this data).
Command: slimjax train --config configs/imagenet100_usnet.py --workdir runs/imagenet100 \
  --config.data.data_dir=DIR
Data: DIR holds imagenet100_train.txt and imagenet100_test.txt, lines of `path/below/DIR.JPEG label`, and
  the images. Lists elsewhere: --config.data.train_list=FILE --config.data.test_list=FILE
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: no numbers are published; not run yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet_usnet()
    config.data.name = "imagenet100"
    config.model.name = "us_mobilenet_v2"
    return config
