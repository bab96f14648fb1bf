r"""US-Net on a data set of your own, prepared by TFDS: ResNet-20 at any width from 0.25 to 1.

Paper: Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019
  (method only; the recipe is Joslim's for CIFAR, see recipes.cifar).
Command: slimjax train --config configs/own_usnet.py --workdir runs/own_usnet \
  --config.data.name=NAME --config.data.data_dir=DIR
Data: `tfds build NAME --file_format=array_record --data_dir=DIR` with your builder, whose features are one
  uint8 image and one label. Class count, image size and channels come from the data. To change:
  --config.data.num_classes=K              labels that are bare integers
  --config.data.augment=mobile --config.data.image_size=64    RGB images of many sizes
  --config.data.augment=shift              images that must not be mirrored, such as digits
  --config.data.train_list=FILE --config.data.test_list=FILE  list files instead of TFDS
  --config.model.name=resnet56             another network: `slimjax cost --model NAME` knows them
  --config.model.options.stem_stride=2     a ResNet on images larger than CIFAR's
  --config.train.epochs=50 --config.optimizer.learning_rate=0.02
Hardware: one GPU or TPU chip; any number of devices that divides 128.
Expected: your numbers.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.cifar()
    config.algorithm = recipes.algorithm("usnet")
    config.data.name = "my_data"  # your builder's name
    return config
