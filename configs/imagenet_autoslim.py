"""AutoSlim on ImageNet: a US-Net at any width from 0.125 to 1 is trained, then slimmed, then retrained.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (see recipes.imagenet_autoslim). MobileNets and MNasNet begin with 1.5 times the channels; ResNet-18 and
  MobileNet V3, which the paper has not, in steps of 8 channels as the others.
Command: slimjax train --config configs/imagenet_autoslim.py:model=autoslim_mobilenet_v2 --workdir runs/autoslim
Then: slimjax search --workdir runs/autoslim --method greedy --budget 'macs<=505e6' 'macs<=305e6' 'macs<=207e6'
  slimjax train --config runs/autoslim/search-greedy/retrain.py --workdir runs/retrained
Hardware: 8 accelerators, or any number that divides 1,024.
Expected: about 72 % top-1 at width 1 of MobileNet V2 (an author to users); the published errors of the retrained
  networks, and the budgets of the others, in docs/results/networks.md; not run here yet.
"""

from typing import Literal

from ml_collections import ConfigDict

from slimjax.experiment import recipes

Model = Literal[
    "autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50",
    "mobilenet_v3_large", "resnet18",
]  # fmt: skip
SPACE = {"min_width": 0.125, "rounding": "multiple", "divisor": 8}
"""Of AutoSlim's own networks too, which have it by their names."""
SPACES = {"mobilenet_v3_large": SPACE, "resnet18": SPACE}


def get_config(model: Model = "autoslim_mobilenet_v2") -> ConfigDict:
    config = recipes.imagenet_autoslim()
    config.model.update(name=model, **SPACES.get(model, {}))
    return config
