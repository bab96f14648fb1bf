"""BigNAS on scikit-learn's 8x8 digits: random widths of each group, searched afterwards, in minutes.

Paper: Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020
  (method only: channels, no kernels or depths; the settings are those of digits_resnet8_joslim.py).
Network: 6 groups, 28,894 MACs at width 0.42 to 189,248 at 1.
Command: slimjax train --config configs/digits_resnet8_bignas.py --workdir runs/digits_bignas
Then: slimjax search --workdir runs/digits_bignas --budget 'macs<=0.25' 'macs<=0.5' 'macs<=0.75'
Hardware: any; a few minutes on two CPU cores.
Expected: one run on two CPU cores gave top-1 92.0, 93.4, 95.2 and 95.4 % at 20, 44, 74 and 100 % of the MACs.
"""

from ml_collections import ConfigDict

from slimjax.experiment import recipes


def get_config() -> ConfigDict:
    config = recipes.embedded("digits")
    config.algorithm = recipes.bignas()
    config.data.holdout = 200
    config.model.update(min_width=0.42)
    config.model.options.channels = (8, 16, 32)
    config.engine.policy = "masked"
    config.train.steps = 800
    return config
