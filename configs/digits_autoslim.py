"""AutoSlim on scikit-learn's 8x8 digits: a US-Net is trained, slimmed step by step, and what is found trained anew.

Paper: Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019
  (method only; the paper does not use this data).
Command: slimjax train --config configs/digits_autoslim.py --workdir runs/digits_autoslim
Then: slimjax search --workdir runs/digits_autoslim --method greedy --budget 'macs<=0.5' 'macs<=0.25'
  slimjax train --config runs/digits_autoslim/search-greedy/retrain.py --workdir runs/retrained
Hardware: any; a few minutes on two CPU cores.
Expected: one run on two CPU cores gave top-1 96.6 % at 50 % of the MACs and 95.4 % at 22 %, retrained.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.algorithm("usnet")
    config.data.holdout = config.scoring.images = 200
    config.model.options.channels = (8, 16, 32)
    config.train.steps = 800
    config.evaluation.widths = (0.25, 0.5, 0.75, 1.0)
    return config
