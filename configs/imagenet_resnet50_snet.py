"""S-Net on ImageNet: ResNet-50 at four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019,
  with the released settings.
Network: 21 groups, 278,110,720 MACs at width 0.25 to 4,089,284,608 at 1.
Command: slimjax train --config configs/imagenet_resnet50_snet.py --workdir runs/imagenet_resnet50_snet
Hardware: 8 accelerators, or any number that divides 256.
Expected: published top-1 error in % and millions of MACs (published as 4.1G, 2.3G, 1.1G and 278M), by width:
  1: 24.0 (4089), 0.75: 25.1 (2323), 0.5: 27.9 (1052), 0.25: 35.0 (278)
Not run here yet.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.imagenet()
    config.algorithm = recipes.snet()
    config.data.augment = "basic"  # crops of 0.08 to 1 of the image
    config.model.name = "s_resnet50"
    config.train.update(batch_size=256, epochs=100.0)
    config.optimizer.update(
        learning_rate=0.1, schedule="multistep", factor=0.1, milestones=(30.0, 60.0, 90.0)
    )
    return config
