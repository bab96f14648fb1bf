"""S-Net on ImageNet: MobileNet V1 or V2, ResNet-50 or ShuffleNet at three or four switches.

Paper: Yu et al., Slimmable Neural Networks, ICLR 2019,
  with the released settings. ShuffleNet has three conv groups and the widths of its own paper: 2 is the largest.
Command: slimjax train --config configs/imagenet_snet.py:model=s_mobilenet_v2 --workdir runs/imagenet_snet
Hardware: 8 accelerators, or any number that divides the batch: 160 for MobileNets, 256 for ResNet-50, 1,024 for
  ShuffleNet.
Expected: the published errors in docs/results/networks.md; not run here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal["s_mobilenet_v1", "s_mobilenet_v2", "s_resnet50", "s_shufflenet"]
SETTINGS = {
    "s_mobilenet_v1": {},
    "s_mobilenet_v2": {"algorithm": {"widths": (0.35, 0.5, 0.75, 1.0)}},
    "s_resnet50": {
        **recipes.RETRAINING["resnet50"],  # AutoSlim's authors, the same people, kept them
        "data": {"augment": "basic"},  # crops of 0.08 to 1 of the image
    },
    "s_shufflenet": {
        "algorithm": {"widths": (0.5, 1.0, 2.0)},
        "train": {"batch_size": 1024, "epochs": 250.0},
        "optimizer": {"learning_rate": 0.5, "schedule": "linear"},
    },
}
"""What of them differs from those of the MobileNets (`recipes.imagenet_snet`)."""


def get_config(model: Model = "s_mobilenet_v2") -> ConfigDict:
    config = recipes.imagenet_snet()
    config.model.name = model
    config.update(SETTINGS[model])
    return config
